//! The one table of nftables: which packets of steps go where. Written as one batch, which the kernel takes whole or not at all.
//!
//! ```text
//! table inet rbuild_OWNER {
//!   chain prerouting  { hook prerouting, mangle   iif BRIDGE and not IPv4, or from outside of SUBNET      drop }
//!   chain input       { hook input                iif BRIDGE to GATEWAY port 53, UDP and TCP             accept
//!                                                 iif BRIDGE                                             refuse }
//!   chain forward     { hook forward              iif BRIDGE oif BRIDGE                                  refuse
//!                                                 oif BRIDGE established or related                      accept
//!                                                 oif BRIDGE                                             drop
//!                                                 iif BRIDGE what the host has redirected                refuse
//!                                                 iif BRIDGE to a metadata address                       refuse }
//!   chain postrouting { hook postrouting, srcnat  from SUBNET oif not BRIDGE                             masquerade }
//! }
//! ```
//!
//! Accepting is for this table alone: a firewall of the host still decides too. Redirected packets are refused because the ports that
//! a host redirects (published ports of its containers) are its listeners by another name. The table belongs to the socket that made it
//! (Linux 5.12) and outlives it (6.9): nobody else's `flush ruleset` opens the host to steps, nor does the death of the daemon while a
//! step still runs. Numbers are those of `linux/netfilter/nf_tables.h`.

use std::io;

use crate::message::{self, Message, attribute, flags};
use crate::socket::Socket;
use crate::subnet::Subnet;

const SUBSYSTEM: u16 = 10;
const BATCH_BEGIN: u16 = 0x10;
const BATCH_END: u16 = 0x11;
const NEW_TABLE: u16 = 0;
const GET_TABLE: u16 = 1;
const DELETE_TABLE: u16 = 2;
const NEW_CHAIN: u16 = 3;
const GET_CHAIN: u16 = 4;
const NEW_RULE: u16 = 6;

const FAMILY_ANY: u8 = 0;
const FAMILY_INET: u8 = 1;
const FAMILY_IPV4: u8 = 2;

const TABLE_NAME: u16 = 1;
const TABLE_FLAGS: u16 = 2;
const OWNED: u32 = 2;
const PERSISTENT: u32 = 4;

const CHAIN_TABLE: u16 = 1;
const CHAIN_NAME: u16 = 3;
const CHAIN_HOOK: u16 = 4;
const CHAIN_POLICY: u16 = 5;
const CHAIN_TYPE: u16 = 7;
const HOOK_NUMBER: u16 = 1;
const HOOK_PRIORITY: u16 = 2;

const RULE_TABLE: u16 = 1;
const RULE_CHAIN: u16 = 2;
const RULE_EXPRESSIONS: u16 = 4;
const LIST_ELEMENT: u16 = 1;
const EXPRESSION_NAME: u16 = 1;
const EXPRESSION_DATA: u16 = 2;
const DATA_VALUE: u16 = 1;
const DATA_VERDICT: u16 = 2;
const VERDICT_CODE: u16 = 1;

const REGISTER_VERDICT: u32 = 0;
const REGISTER: u32 = 1;
const META_IIFNAME: u32 = 6;
const META_OIFNAME: u32 = 7;
const META_NFPROTO: u32 = 15;
const META_L4PROTO: u32 = 16;
const CT_STATE: u32 = 0;
const CT_STATUS: u32 = 2;
/// Bits of the state: a reply or what followed one, and what belongs to it.
const ESTABLISHED_RELATED: u32 = 0b110;
/// The bit of the status: the destination was replaced.
const REDIRECTED: u32 = 1 << 5;
const BASE_NETWORK: u32 = 1;
const BASE_TRANSPORT: u32 = 2;
const SOURCE: u32 = 12;
const DESTINATION: u32 = 16;
const DESTINATION_PORT: u32 = 2;
const EQUAL: u32 = 0;
const NOT_EQUAL: u32 = 1;
const DROP: u32 = 0;
const ACCEPT: u32 = 1;
/// `icmpx admin-prohibited`: the right ICMP of the packet's family.
const REJECT_ICMPX: u32 = 2;
const REJECT_PROHIBITED: u8 = 3;

const TCP: u8 = 6;
const UDP: u8 = 17;
const DNS_PORT: u16 = 53;

/// Names of interfaces are compared with all their bytes.
const NAME_BYTES: usize = 16;

/// Where providers of machines tell them their credentials: link-local addresses (AWS, GCP, Azure and others), Alibaba's, and the
/// server of Azure's agent.
pub(crate) const METADATA: [Subnet; 3] = [
    Subnet::literal([169, 254, 0, 0], 16),
    Subnet::literal([100, 100, 100, 200], 32),
    Subnet::literal([168, 63, 129, 16], 32),
];

/// What the rules of the table depend on.
#[derive(Debug, Clone)]
pub(crate) struct Rules {
    pub(crate) table: String,
    pub(crate) bridge: String,
    pub(crate) subnet: Subnet,
    /// Whether packets to the addresses of [`METADATA`] are refused.
    pub(crate) hide_metadata: bool,
}

/// How a packet is refused.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Refusal {
    /// With an answer, so that a program fails at once.
    Answer,
    /// For kernels without `nft_reject`.
    Silence,
}

fn message(kind: u16, flags: u16, family: u8) -> Message {
    Message::new((SUBSYSTEM << 8) | kind, flags, &[family, 0, 0, 0])
}

fn batch_mark(kind: u16) -> Message {
    let [high, low] = SUBSYSTEM.to_be_bytes();
    Message::new(kind, 0, &[FAMILY_ANY, 0, high, low])
}

/// Puts a batch around changes.
fn batch(changes: Vec<Message>) -> Vec<(Message, bool)> {
    let begin = (batch_mark(BATCH_BEGIN), false);
    let end = (batch_mark(BATCH_END), false);
    let changes = changes.into_iter().map(|change| (change, true));
    std::iter::once(begin).chain(changes).chain([end]).collect()
}

/// A rule that is being written: what must be so, then what is done.
struct Rule {
    message: Message,
}

impl Rule {
    fn expression(mut self, name: &str, data: impl FnOnce(Message) -> Message) -> Self {
        self.message = self.message.nest(LIST_ELEMENT, |element| {
            element
                .text(EXPRESSION_NAME, name)
                .nest(EXPRESSION_DATA, data)
        });
        self
    }

    fn compare(self, operator: u32, value: &[u8]) -> Self {
        self.expression("cmp", |data| {
            data.be32(1, REGISTER)
                .be32(2, operator)
                .nest(3, |right| right.attr(DATA_VALUE, value))
        })
    }

    fn meta(self, key: u32, operator: u32, value: &[u8]) -> Self {
        self.expression("meta", |data| data.be32(1, REGISTER).be32(2, key))
            .compare(operator, value)
    }

    fn interface(self, key: u32, operator: u32, name: &str) -> Self {
        let mut value = name.as_bytes().to_vec();
        value.resize(NAME_BYTES, 0);
        self.meta(key, operator, &value)
    }

    fn from(self, bridge: &str) -> Self {
        self.interface(META_IIFNAME, EQUAL, bridge)
    }

    fn to(self, bridge: &str) -> Self {
        self.interface(META_OIFNAME, EQUAL, bridge)
    }

    fn ipv4(self) -> Self {
        self.meta(META_NFPROTO, EQUAL, &[FAMILY_IPV4])
    }

    fn load(self, base: u32, offset: u32, length: u32) -> Self {
        self.expression("payload", |data| {
            data.be32(1, REGISTER)
                .be32(2, base)
                .be32(3, offset)
                .be32(4, length)
        })
    }

    fn mask(self, mask: [u8; 4]) -> Self {
        self.expression("bitwise", |data| {
            data.be32(1, REGISTER)
                .be32(2, REGISTER)
                .be32(3, 4)
                .nest(4, |value| value.attr(DATA_VALUE, &mask))
                .nest(5, |value| value.attr(DATA_VALUE, &[0; 4]))
        })
    }

    /// The address of the IPv4 header at `offset` is in the subnet, or is not.
    fn address(self, offset: u32, operator: u32, subnet: Subnet) -> Self {
        self.load(BASE_NETWORK, offset, 4)
            .mask(subnet.mask().octets())
            .compare(operator, &subnet.base().octets())
    }

    /// One of the bits of what conntrack knows is set.
    fn tracked(self, key: u32, bits: u32) -> Self {
        self.expression("ct", |data| data.be32(1, REGISTER).be32(2, key))
            .mask(bits.to_ne_bytes())
            .compare(NOT_EQUAL, &[0; 4])
    }

    fn verdict(self, code: u32) -> Message {
        self.expression("immediate", |data| {
            data.be32(1, REGISTER_VERDICT).nest(2, |value| {
                value.nest(DATA_VERDICT, |verdict| verdict.be32(VERDICT_CODE, code))
            })
        })
        .finish()
    }

    fn refuse(self, refusal: Refusal) -> Message {
        match refusal {
            Refusal::Silence => self.verdict(DROP),
            Refusal::Answer => self
                .expression("reject", |data| {
                    data.be32(1, REJECT_ICMPX).attr(2, &[REJECT_PROHIBITED])
                })
                .finish(),
        }
    }

    fn masquerade(self) -> Message {
        self.expression("masq", |data| data).finish()
    }

    fn finish(self) -> Message {
        self.message
    }
}

fn chain(table: &str, name: &str, kind: &str, (hook, priority): (u32, i32)) -> Message {
    message(NEW_CHAIN, flags::CREATE, FAMILY_INET)
        .text(CHAIN_TABLE, table)
        .text(CHAIN_NAME, name)
        .nest(CHAIN_HOOK, |place| {
            place
                .be32(HOOK_NUMBER, hook)
                .be32(HOOK_PRIORITY, priority.cast_unsigned())
        })
        .be32(CHAIN_POLICY, ACCEPT)
        .text(CHAIN_TYPE, kind)
}

fn rule(table: &str, chain: &str, write: impl FnOnce(Rule) -> Message) -> Message {
    const APPEND: u16 = 0x800;
    message(NEW_RULE, flags::CREATE | APPEND, FAMILY_INET)
        .text(RULE_TABLE, table)
        .text(RULE_CHAIN, chain)
        .nest(RULE_EXPRESSIONS, |message| write(Rule { message }))
}

/// Tries what the newest kernel knows, then what older ones do.
fn install(socket: &mut Socket, changes: impl Fn(u32, Refusal) -> Vec<Message>) -> io::Result<()> {
    let mut last = Ok(());
    for table_flags in [OWNED | PERSISTENT, 0] {
        for refusal in [Refusal::Answer, Refusal::Silence] {
            last = socket.batch(batch(changes(table_flags, refusal)));
            let unknown = [
                rustix::io::Errno::NOENT,
                rustix::io::Errno::OPNOTSUPP,
                rustix::io::Errno::INVAL,
            ];
            match &last {
                // An older kernel: it knows no such flag or no such expression.
                Err(error)
                    if unknown
                        .iter()
                        .any(|errno| error.raw_os_error() == Some(errno.raw_os_error())) => {}
                _ => return last,
            }
        }
    }
    last
}

/// Makes a table of this name, or puts it in the place of the one that is there, which refuses whatever is forwarded to these
/// destinations. The kernel exchanges it in one moment. The socket must stay open as long as the table is wanted.
pub(crate) fn hide(socket: &mut Socket, table: &str, places: &[Subnet]) -> io::Result<()> {
    // Before the chain of the bridge, which accepts nothing that goes out.
    const PRIORITY: i32 = -10;
    install(socket, |table_flags, refusal| {
        let new_table = || {
            message(NEW_TABLE, flags::CREATE, FAMILY_INET)
                .text(TABLE_NAME, table)
                .be32(TABLE_FLAGS, table_flags)
        };
        let mut changes = vec![
            new_table(),
            message(DELETE_TABLE, 0, FAMILY_INET).text(TABLE_NAME, table),
            new_table(),
            chain(table, "forward", "filter", (2, PRIORITY)),
        ];
        changes.extend(places.iter().map(|place| {
            rule(table, "forward", |rule| {
                rule.ipv4()
                    .address(DESTINATION, EQUAL, *place)
                    .refuse(refusal)
            })
        }));
        changes
    })
}

impl Rules {
    fn chain(&self, name: &str, kind: &str, hook: u32, priority: i32) -> Message {
        chain(&self.table, name, kind, (hook, priority))
    }

    /// A rule at the end of a chain; `write` adds its expressions.
    fn rule(&self, chain: &str, write: impl FnOnce(Rule) -> Message) -> Message {
        rule(&self.table, chain, write)
    }

    fn changes(&self, table_flags: u32, refusal: Refusal) -> Vec<Message> {
        let bridge = &self.bridge;
        let subnet = self.subnet;
        let gateway = subnet.gateway();
        let mut changes = vec![
            message(NEW_TABLE, flags::CREATE | flags::EXCLUSIVE, FAMILY_INET)
                .text(TABLE_NAME, &self.table)
                .be32(TABLE_FLAGS, table_flags),
            self.chain("prerouting", "filter", 0, -150),
            self.chain("input", "filter", 1, 0),
            self.chain("forward", "filter", 2, 0),
            self.chain("postrouting", "nat", 4, 100),
            self.rule("prerouting", |rule| {
                rule.from(bridge)
                    .meta(META_NFPROTO, NOT_EQUAL, &[FAMILY_IPV4])
                    .verdict(DROP)
            }),
            self.rule("prerouting", |rule| {
                rule.from(bridge)
                    .address(SOURCE, NOT_EQUAL, subnet)
                    .verdict(DROP)
            }),
        ];
        for protocol in [UDP, TCP] {
            changes.push(self.rule("input", |rule| {
                rule.from(bridge)
                    .ipv4()
                    .load(BASE_NETWORK, DESTINATION, 4)
                    .compare(EQUAL, &gateway.octets())
                    .meta(META_L4PROTO, EQUAL, &[protocol])
                    .load(BASE_TRANSPORT, DESTINATION_PORT, 2)
                    .compare(EQUAL, &DNS_PORT.to_be_bytes())
                    .verdict(ACCEPT)
            }));
        }
        changes.extend([
            self.rule("input", |rule| rule.from(bridge).refuse(refusal)),
            self.rule("forward", |rule| {
                rule.from(bridge).to(bridge).refuse(refusal)
            }),
            self.rule("forward", |rule| {
                rule.to(bridge)
                    .tracked(CT_STATE, ESTABLISHED_RELATED)
                    .verdict(ACCEPT)
            }),
            self.rule("forward", |rule| rule.to(bridge).verdict(DROP)),
            self.rule("forward", |rule| {
                rule.from(bridge)
                    .tracked(CT_STATUS, REDIRECTED)
                    .refuse(refusal)
            }),
        ]);
        for place in METADATA.iter().filter(|_| self.hide_metadata) {
            changes.push(self.rule("forward", |rule| {
                rule.from(bridge)
                    .ipv4()
                    .address(DESTINATION, EQUAL, *place)
                    .refuse(refusal)
            }));
        }
        changes.push(self.rule("postrouting", |rule| {
            rule.ipv4()
                .address(SOURCE, EQUAL, subnet)
                .interface(META_OIFNAME, NOT_EQUAL, bridge)
                .masquerade()
        }));
        changes
    }

    /// Makes the table. The socket must stay open as long as the table is wanted.
    pub(crate) fn install(&self, socket: &mut Socket) -> io::Result<()> {
        install(socket, |table_flags, refusal| {
            self.changes(table_flags, refusal)
        })
    }
}

/// Removes a table with all that is in it. That it is gone already is fine.
pub(crate) fn delete_table(socket: &mut Socket, table: &str) -> io::Result<()> {
    let change = message(DELETE_TABLE, 0, FAMILY_INET).text(TABLE_NAME, table);
    match socket.batch(batch(vec![change])) {
        Err(error) if error.raw_os_error() == Some(rustix::io::Errno::NOENT.raw_os_error()) => {
            Ok(())
        }
        result => result,
    }
}

/// The names of all tables of the family that ours are of.
pub(crate) fn tables(socket: &mut Socket) -> io::Result<Vec<String>> {
    socket.dump(&message(GET_TABLE, 0, FAMILY_INET), |received| {
        attribute(received.body.get(4..)?, TABLE_NAME).map(message::text)
    })
}

/// A chain of somebody else that drops what it has not been told to forward: steps reach nothing then.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct ClosedChain {
    pub(crate) table: String,
    pub(crate) chain: String,
}

/// Chains of the host that drop forwarded packets unless a rule of theirs says otherwise, as Docker's does.
pub(crate) fn closed_forward_chains(socket: &mut Socket) -> io::Result<Vec<ClosedChain>> {
    const FORWARD: u32 = 2;
    socket.dump(&message(GET_CHAIN, 0, FAMILY_ANY), |received| {
        let [family, ..] = *received.body else {
            return None;
        };
        let attributes = received.body.get(4..)?;
        let big = |bytes: &[u8]| bytes.try_into().ok().map(u32::from_be_bytes);
        let hook = attribute(attribute(attributes, CHAIN_HOOK)?, HOOK_NUMBER).and_then(big)?;
        let policy = attribute(attributes, CHAIN_POLICY).and_then(big)?;
        let is_our_family = matches!(family, FAMILY_INET | FAMILY_IPV4);
        (is_our_family && hook == FORWARD && policy == DROP).then(|| ClosedChain {
            table: attribute(attributes, CHAIN_TABLE)
                .map(message::text)
                .unwrap_or_default(),
            chain: attribute(attributes, CHAIN_NAME)
                .map(message::text)
                .unwrap_or_default(),
        })
    })
}

#[cfg(test)]
mod tests;
