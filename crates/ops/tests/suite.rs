//! Keys of ops against those that BuildKit v0.34.2 computes, recorded from its own `CacheMap`.

#[path = "suite/cache_mounts.rs"]
mod cache_mounts;
#[path = "suite/exec.rs"]
mod exec;
#[path = "suite/exec_clients.rs"]
mod exec_clients;
#[path = "suite/exec_mounts.rs"]
mod exec_mounts;
#[path = "suite/lab.rs"]
mod lab;
#[path = "suite/steps.rs"]
mod steps;

use llb::pb;
use prost::Message as _;
use serde::Deserialize;

#[derive(Deserialize)]
struct Recorded {
    #[serde(rename = "Name")]
    name: String,
    #[serde(rename = "Op")]
    op: String,
    #[serde(rename = "Digest")]
    digest: String,
    #[serde(rename = "Inputs")]
    inputs: usize,
    #[serde(rename = "Deps")]
    deps: Option<Vec<RecordedDep>>,
}

#[derive(Deserialize, Debug, PartialEq)]
struct RecordedDep {
    selector: String,
    content: bool,
}

fn decode_base64(text: &str) -> Vec<u8> {
    let value = |b: u8| match b {
        b'A'..=b'Z' => b - b'A',
        b'a'..=b'z' => b - b'a' + 26,
        b'0'..=b'9' => b - b'0' + 52,
        b'+' => 62,
        _ => 63,
    };
    let mut out = Vec::new();
    for chunk in text.trim_end_matches('=').as_bytes().chunks(4) {
        let word = chunk
            .iter()
            .fold(0_u32, |w, b| (w << 6) | u32::from(value(*b)))
            << (6 * (4 - chunk.len()));
        out.extend(word.to_be_bytes()[1..chunk.len()].iter());
    }
    out
}

fn excludes(action: &pb::FileAction) -> bool {
    let Some(pb::file_action::Action::Copy(copy)) = &action.action else {
        return false;
    };
    !copy.exclude_patterns.is_empty()
}

#[test]
fn keys_of_ops_are_those_of_buildkit() {
    let recorded: Vec<Recorded> =
        serde_json::from_slice(include_bytes!("golden/cache-maps.json")).unwrap();
    assert!(recorded.len() > 8);
    for case in recorded {
        let op = pb::Op::decode(decode_base64(&case.op).as_slice()).unwrap();
        let mut differs = false;
        let plan = match op.op.unwrap() {
            pb::op::Op::Exec(exec) => {
                ops::exec::key::plan(&exec, op.platform.as_ref(), case.inputs).unwrap()
            }
            pb::op::Op::File(file) => {
                differs = file.actions.iter().any(excludes);
                ops::file::key::plan(&file, case.inputs).unwrap()
            }
            pb::op::Op::Merge(merge) => {
                ops::combine::plan(&ops::combine::CombineKind::Merge(merge), case.inputs)
            }
            pb::op::Op::Diff(diff) => {
                ops::combine::plan(&ops::combine::CombineKind::Diff(diff), case.inputs)
            }
            pb::op::Op::Source(_) | pb::op::Op::Build(_) | pb::op::Op::Passthrough(_) => {
                panic!("no recorded case has such an op")
            }
        };
        // A copy with exclude patterns may have another result than BuildKit's, so its key must differ.
        let same = plan.digest.as_str() == case.digest;
        assert_eq!(same, !differs, "{}: {}", case.name, plan.digest);
        let deps: Vec<RecordedDep> = plan
            .deps
            .iter()
            .map(|d| RecordedDep {
                selector: d
                    .selector
                    .as_ref()
                    .map(ToString::to_string)
                    .unwrap_or_default(),
                content: d.content.is_some(),
            })
            .collect();
        assert_eq!(deps, case.deps.unwrap_or_default(), "{}", case.name);
    }
}
