//! The process rbuildd: settings, sockets, signals, phases, wiring.

fn main() {}
