use super::*;
use crate::lab;

const GET_RULE: u16 = 7;

fn rules(table: &str) -> Rules {
    Rules {
        table: table.into(),
        bridge: "b0".into(),
        subnet: Subnet::literal([10, 10, 0, 0], 16),
        hide_metadata: true,
    }
}

/// The chains of all rules, in their order.
fn chains_of_rules(socket: &mut Socket) -> Vec<String> {
    let request = message(GET_RULE, 0, FAMILY_INET);
    let chain_of = |received: &message::Received<'_>| {
        attribute(received.body.get(4..)?, RULE_CHAIN).map(message::text)
    };
    socket.dump(&request, chain_of).unwrap()
}

fn count(list: &[String], name: &str) -> usize {
    list.iter().filter(|chain| *chain == name).count()
}

#[test]
fn the_kernel_takes_every_rule() {
    testkit::requires!(root);
    lab::alone(|| {
        let mut socket = Socket::netfilter().unwrap();
        rules("t").install(&mut socket).unwrap();
        assert_eq!(tables(&mut socket).unwrap(), ["t"]);
        let chains = chains_of_rules(&mut socket);
        for (chain, expected) in [
            ("prerouting", 2),
            ("input", 3),
            ("forward", 4 + METADATA.len()),
            ("postrouting", 1),
        ] {
            assert_eq!(count(&chains, chain), expected, "{chain}");
        }
        delete_table(&mut socket, "t").unwrap();
        assert_eq!(tables(&mut socket).unwrap(), [""; 0]);
        let open = Rules {
            hide_metadata: false,
            ..rules("t")
        };
        open.install(&mut socket).unwrap();
        assert_eq!(count(&chains_of_rules(&mut socket), "forward"), 4);
    });
}

#[test]
fn every_refusal_and_kind_of_table_is_one_that_the_kernel_takes() {
    testkit::requires!(root);
    lab::alone(|| {
        for flags in [OWNED | PERSISTENT, OWNED, 0] {
            for refusal in [Refusal::Answer, Refusal::Silence] {
                let mut socket = Socket::netfilter().unwrap();
                let changes = batch(rules("t").changes(flags, refusal));
                socket.batch(changes).unwrap();
                delete_table(&mut socket, "t").unwrap();
            }
        }
    });
}

#[test]
fn nobody_else_takes_the_table_away_while_its_owner_lives_and_it_outlives_him() {
    testkit::requires!(root);
    lab::alone(|| {
        let mut owner = Socket::netfilter().unwrap();
        rules("t").install(&mut owner).unwrap();
        let mut second_socket = Socket::netfilter().unwrap();
        let refused = delete_table(&mut second_socket, "t").unwrap_err();
        assert_eq!(refused.kind(), io::ErrorKind::PermissionDenied);
        drop(owner);
        assert_eq!(
            tables(&mut second_socket).unwrap(),
            ["t"],
            "steps may still run"
        );
        delete_table(&mut second_socket, "t").unwrap();
        delete_table(&mut second_socket, "t").unwrap();
    });
}

#[test]
fn a_batch_is_taken_whole_or_not_at_all() {
    testkit::requires!(root);
    lab::alone(|| {
        let mut socket = Socket::netfilter().unwrap();
        let mut changes = rules("t").changes(0, Refusal::Silence);
        changes.push(rules("no such table").rule("input", |rule| rule.verdict(DROP)));
        let refused = socket.batch(batch(changes)).unwrap_err();
        assert_eq!(refused.kind(), io::ErrorKind::NotFound);
        assert_eq!(tables(&mut socket).unwrap(), [""; 0]);
        // The answers to the rest of that batch confuse nobody.
        rules("t").install(&mut socket).unwrap();
        let again = rules("t").install(&mut socket).unwrap_err();
        assert_eq!(again.kind(), io::ErrorKind::AlreadyExists);
        assert_eq!(tables(&mut socket).unwrap(), ["t"]);
    });
}

#[test]
fn a_chain_that_forwards_nothing_by_itself_is_found() {
    testkit::requires!(root);
    lab::alone(|| {
        let mut socket = Socket::netfilter().unwrap();
        rules("ours").install(&mut socket).unwrap();
        assert_eq!(closed_forward_chains(&mut socket).unwrap(), []);
        let firewall = rules("firewall");
        let chain = |name: &str, hook: u32, policy: u32| {
            message(NEW_CHAIN, flags::CREATE, FAMILY_INET)
                .text(CHAIN_TABLE, "firewall")
                .text(CHAIN_NAME, name)
                .nest(CHAIN_HOOK, |place| {
                    place.be32(HOOK_NUMBER, hook).be32(HOOK_PRIORITY, 0)
                })
                .be32(CHAIN_POLICY, policy)
                .text(CHAIN_TYPE, "filter")
        };
        let table = message(NEW_TABLE, flags::CREATE, FAMILY_INET)
            .text(TABLE_NAME, &firewall.table)
            .be32(TABLE_FLAGS, 0);
        let changes = vec![
            table,
            chain("open", 2, ACCEPT),
            chain("input", 1, DROP),
            chain("closed", 2, DROP),
        ];
        socket.batch(batch(changes)).unwrap();
        let closed = ClosedChain {
            table: "firewall".into(),
            chain: "closed".into(),
        };
        assert_eq!(closed_forward_chains(&mut socket).unwrap(), [closed]);
    });
}

/// A rule as the program `nft` writes it: `iifname "b0" drop`.
#[test]
fn a_rule_has_the_bytes_that_nft_sends() {
    let rule = rules("t").rule("input", |rule| rule.from("b0").verdict(DROP));
    let bytes = rule.finish(1, 0);
    let expressions = attribute(bytes.get(20..).unwrap(), RULE_EXPRESSIONS).unwrap();
    let mut expected: Vec<u8> = Vec::new();
    let mut put = |length: u16, kind: u16, value: &[u8]| {
        expected.extend(length.to_ne_bytes());
        expected.extend(kind.to_ne_bytes());
        expected.extend(value);
    };
    let nested = 0x8000;
    put(36, nested | 1, &[]);
    put(9, 1, b"meta\0\0\0\0");
    put(20, nested | 2, &[]);
    put(8, 1, &[0, 0, 0, 1]);
    put(8, 2, &[0, 0, 0, 6]);
    put(56, nested | 1, &[]);
    put(8, 1, b"cmp\0");
    put(44, nested | 2, &[]);
    put(8, 1, &[0, 0, 0, 1]);
    put(8, 2, &[0, 0, 0, 0]);
    put(24, nested | 3, &[]);
    put(20, 1, b"b0\0\0\0\0\0\0\0\0\0\0\0\0\0\0");
    put(48, nested | 1, &[]);
    put(14, 1, b"immediate\0\0\0");
    put(28, nested | 2, &[]);
    put(8, 1, &[0, 0, 0, 0]);
    put(16, nested | 2, &[]);
    put(12, nested | 2, &[]);
    put(8, 1, &[0, 0, 0, 0]);
    assert_eq!(expressions, expected);
}
