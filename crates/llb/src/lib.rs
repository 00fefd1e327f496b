//! A build definition, decoded, checked, and addressed.
