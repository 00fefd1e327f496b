use super::*;
use crate::dns::tests::{ask, reply};

const LOOPBACK: Subnet = Subnet::literal([127, 0, 0, 0], 8);
const ANSWER: [u8; 4] = [192, 0, 2, 7];

/// How a resolver of the tests answers.
#[derive(Debug, Clone, Copy)]
enum Behaviour {
    Address,
    Code(u8),
    /// First an answer under another number, then one to another question, then the right one.
    LiesFirst,
    /// Nothing over UDP but that it is too long; the address over TCP.
    TooLong,
}

fn answers(behaviour: Behaviour, query: &[u8]) -> Vec<Vec<u8>> {
    let honest = reply(query, ANSWER);
    match behaviour {
        Behaviour::Address => vec![honest],
        Behaviour::Code(code) => {
            let mut failure = query.to_vec();
            failure[2] |= 0x80;
            failure[3] = code;
            vec![failure]
        }
        Behaviour::LiesFirst => {
            let mut guessed = reply(query, [6; 4]);
            guessed[0] ^= 1;
            let id = u16::from_be_bytes([query[0], query[1]]);
            let other_question = reply(&ask(id, "other.example"), [6; 4]);
            vec![guessed, other_question, honest]
        }
        Behaviour::TooLong => vec![Query::parse(query).unwrap().too_long()],
    }
}

/// A resolver on the loopback interface, over UDP and TCP.
async fn resolver(behaviour: Behaviour) -> SocketAddr {
    let udp = UdpSocket::bind("127.0.0.1:0").await.unwrap();
    let address = udp.local_addr().unwrap();
    let tcp = TcpListener::bind(address).await.unwrap();
    let datagrams = async move {
        let mut buffer = [0; 2048];
        loop {
            let (length, from) = udp.recv_from(&mut buffer).await.unwrap();
            for answer in answers(behaviour, &buffer[..length]) {
                udp.send_to(&answer, from).await.unwrap();
            }
        }
    };
    let streams = async move {
        loop {
            let (mut stream, _) = tcp.accept().await.unwrap();
            let Ok(query) = read_message(&mut stream).await else {
                continue;
            };
            let over_tcp = if matches!(behaviour, Behaviour::TooLong) {
                Behaviour::Address
            } else {
                behaviour
            };
            let answer = answers(over_tcp, &query).pop().unwrap();
            write_message(&mut stream, &answer).await.unwrap();
        }
    };
    task::spawn("resolver", async { futures::join!(datagrams, streams) }).detach();
    address
}

/// A port at which nobody listens.
async fn nobody() -> SocketAddr {
    let socket = UdpSocket::bind("127.0.0.1:0").await.unwrap();
    socket.local_addr().unwrap()
}

/// A forwarder for `subnet` that asks these.
async fn forwarder(subnet: Subnet, upstreams: Vec<SocketAddr>) -> (SocketAddr, task::Task<()>) {
    // Both have to have the same port, as they have it on the bridge.
    let address = nobody().await;
    let listening = Listening::open(address, None, subnet).unwrap();
    let upstreams = Upstreams::of(ResolverSource::Fixed(upstreams));
    (
        address,
        task::spawn("forwarder", listening.serve(upstreams)),
    )
}

async fn client(from: &str, to: SocketAddr) -> UdpSocket {
    let socket = UdpSocket::bind(from).await.unwrap();
    socket.connect(to).await.unwrap();
    socket
}

async fn receive(socket: &UdpSocket) -> Vec<u8> {
    let mut buffer = [0; 2048];
    let received = timeout(Duration::from_secs(20), socket.recv(&mut buffer)).await;
    buffer[..received.unwrap().unwrap()].to_vec()
}

async fn asks(to: SocketAddr, query: &[u8]) -> Vec<u8> {
    let socket = client("127.0.0.1:0", to).await;
    socket.send(query).await.unwrap();
    receive(&socket).await
}

#[tokio::test]
async fn a_step_gets_what_the_hosts_resolver_says() {
    let (address, _serving) = forwarder(LOOPBACK, vec![resolver(Behaviour::Address).await]).await;
    for id in [0, 0x1234, u16::MAX] {
        let query = ask(id, "example.com");
        assert_eq!(asks(address, &query).await, reply(&query, ANSWER));
    }
}

#[tokio::test]
async fn the_next_resolver_is_asked_when_one_fails() {
    for first in [
        nobody().await,
        resolver(Behaviour::Code(2)).await,
        resolver(Behaviour::Code(5)).await,
    ] {
        let upstreams = vec![first, resolver(Behaviour::Address).await];
        let (address, _serving) = forwarder(LOOPBACK, upstreams).await;
        let query = ask(1, "example.com");
        assert_eq!(asks(address, &query).await, reply(&query, ANSWER));
    }
}

#[tokio::test]
async fn that_there_is_no_such_name_is_an_answer_like_others() {
    let upstreams = vec![
        resolver(Behaviour::Code(3)).await,
        resolver(Behaviour::Address).await,
    ];
    let (address, _serving) = forwarder(LOOPBACK, upstreams).await;
    let answer = asks(address, &ask(1, "example.com")).await;
    assert_eq!(answer[3] & 0x0f, 3);
}

#[tokio::test]
async fn when_all_fail_the_step_hears_it_at_once() {
    let none: [Vec<SocketAddr>; 3] = [
        Vec::new(),
        vec![nobody().await],
        vec![nobody().await, resolver(Behaviour::Code(5)).await],
    ];
    for (upstreams, code) in none.into_iter().zip([2, 2, 5]) {
        let (address, _serving) = forwarder(LOOPBACK, upstreams).await;
        let answer = asks(address, &ask(0xbeef, "example.com")).await;
        assert_eq!(
            (answer[..2].to_vec(), answer[3] & 0x0f),
            (vec![0xbe, 0xef], code)
        );
    }
}

#[tokio::test]
async fn answers_that_nobody_asked_for_are_not_handed_on() {
    let (address, _serving) = forwarder(LOOPBACK, vec![resolver(Behaviour::LiesFirst).await]).await;
    let query = ask(1, "example.com");
    assert_eq!(asks(address, &query).await, reply(&query, ANSWER));
}

#[tokio::test]
async fn a_long_answer_is_had_over_tcp() {
    let (address, _serving) = forwarder(LOOPBACK, vec![resolver(Behaviour::TooLong).await]).await;
    let query = ask(1, "example.com");
    let short = asks(address, &query).await;
    assert_eq!(short[2] & 0x02, 0x02, "cut off");
    let mut stream = TcpStream::connect(address).await.unwrap();
    for id in [7, 8] {
        let query = ask(id, "example.com");
        write_message(&mut stream, &query).await.unwrap();
        let answer = read_message(&mut stream).await.unwrap();
        assert_eq!(answer, reply(&query, ANSWER));
    }
}

#[tokio::test]
async fn zones_are_not_transferred_and_what_is_no_query_ends_the_connection() {
    let (address, _serving) = forwarder(LOOPBACK, vec![resolver(Behaviour::Address).await]).await;
    let mut stream = TcpStream::connect(address).await.unwrap();
    let mut transfer = ask(1, "example.com");
    let end = transfer.len();
    transfer[end - 3] = 252;
    write_message(&mut stream, &transfer).await.unwrap();
    assert_eq!(read_message(&mut stream).await.unwrap()[3] & 0x0f, 5);
    write_message(&mut stream, &reply(&ask(1, "a"), ANSWER))
        .await
        .unwrap();
    let error = read_message(&mut stream).await.unwrap_err();
    assert_eq!(error.kind(), io::ErrorKind::UnexpectedEof);
}

#[tokio::test]
async fn nobody_outside_of_the_subnet_is_heard() {
    let steps = Subnet::literal([127, 0, 0, 2], 32);
    let (address, _serving) = forwarder(steps, vec![resolver(Behaviour::Address).await]).await;
    let outside = client("127.0.0.1:0", address).await;
    let step = client("127.0.0.2:0", address).await;
    let query = ask(1, "example.com");
    outside.send(&query).await.unwrap();
    step.send(&query).await.unwrap();
    assert_eq!(receive(&step).await, reply(&query, ANSWER));
    // Its query came first, so an answer would be there.
    let nothing = outside.try_recv(&mut [0; 512]).unwrap_err();
    assert_eq!(nothing.kind(), io::ErrorKind::WouldBlock);
    let mut stream = TcpStream::connect(address).await.unwrap();
    let written = write_message(&mut stream, &query).await;
    assert!(written.is_err() || read_message(&mut stream).await.is_err());
}

#[tokio::test]
async fn responses_are_never_answered_for_two_forwarders_would_never_end() {
    let (address, _serving) = forwarder(LOOPBACK, vec![resolver(Behaviour::Address).await]).await;
    let socket = client("127.0.0.1:0", address).await;
    socket.send(&reply(&ask(1, "a"), ANSWER)).await.unwrap();
    socket.send(b"x").await.unwrap();
    socket.send(&ask(2, "invalid")).await.unwrap();
    let answer = receive(&socket).await;
    assert_eq!(
        (answer[1], answer[3] & 0x0f),
        (2, 3),
        "the first answer is to the last"
    );
}

#[tokio::test]
async fn one_step_cannot_take_the_places_of_all() {
    let limits = QueryLimits {
        total: 5,
        per_step: 3,
    };
    let mut under_way = UnderWay::new(limits);
    let [greedy, other, late]: [IpAddr; 3] =
        ["10.0.0.2", "10.0.0.3", "10.0.0.4"].map(|text| text.parse().unwrap());
    let mut admitted = 0;
    while under_way.admits(greedy) {
        under_way.begin(greedy, std::future::ready(()));
        admitted += 1;
    }
    assert_eq!(admitted, limits.per_step);
    for _ in 0..2 {
        assert!(under_way.admits(other));
        under_way.begin(other, std::future::ready(()));
    }
    assert!(!under_way.admits(late), "all places are taken");
    for _ in 0..5 {
        under_way.end_one().await;
    }
    assert!(under_way.admits(greedy) && under_way.admits(late));
    assert!(
        under_way.count.is_empty(),
        "nothing is kept of steps that are gone"
    );
}

#[test]
fn resolvers_are_read_from_the_hosts_file() {
    let forwarder = Ipv4Addr::new(10, 10, 0, 1);
    let check = |text: &str, expected: &[&str]| {
        let expected: Vec<SocketAddr> = expected.iter().map(|it| it.parse().unwrap()).collect();
        assert_eq!(resolvers(text, forwarder), expected, "{text:?}");
    };
    check(
        "# nameserver 1.1.1.1\nsearch a\nnameserver 127.0.0.53\nnameserver\t::1 # c\n",
        &["127.0.0.53:53", "[::1]:53"],
    );
    check(
        "nameserver nonsense\nnameserver\nnameserver fe80::1%eth0\nnameserver 9.9.9.9",
        &["9.9.9.9:53"],
    );
    check(
        "nameserver 10.10.0.1\nnameserver 10.10.0.2\n",
        &["10.10.0.2:53"],
    );
    let many = "nameserver 1.0.0.1\n".repeat(9);
    check(&many, &["1.0.0.1:53"; MAX_RESOLVERS]);
    for none in ["", "search a\n", "nameserver 10.10.0.1\n"] {
        check(none, &["8.8.8.8:53", "8.8.4.4:53"]);
    }
}

#[test]
fn configured_resolvers_stand_for_those_of_the_host() {
    let configured = Upstreams::new(&["10.0.0.53".parse().unwrap(), "10.10.0.1".parse().unwrap()]);
    let list = configured.without(Ipv4Addr::new(10, 10, 0, 1)).list();
    assert_eq!(list, ["10.0.0.53:53".parse().unwrap()]);

    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("resolv.conf");
    let of_file = |path: PathBuf| {
        Upstreams::of(ResolverSource::File {
            path,
            excluded: Ipv4Addr::UNSPECIFIED,
        })
    };
    std::fs::write(&path, "nameserver 10.0.0.7\n").unwrap();
    assert_eq!(of_file(path).list(), ["10.0.0.7:53".parse().unwrap()]);
    let missing = of_file(dir.path().join("missing"));
    assert_eq!(missing.list().len(), PUBLIC_RESOLVERS.len());
}
