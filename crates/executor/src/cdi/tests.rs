use std::fs;

use super::*;
use crate::access::{NetworkMode, SecurityMode};
use crate::injection::DeviceEdits;
use crate::spec::{ContainerSpec, ProcessSpec};

const FILE: &str = r#"
cdiVersion: "0.6.0"
kind: "vendor1.com/device"
annotations:
  org.mobyproject.buildkit.device.autoallow: true
devices:
- name: foo
  annotations:
    org.mobyproject.buildkit.device.class: class1
  containerEdits:
    env:
    - FOO=injected
- name: bar
  annotations:
    org.mobyproject.buildkit.device.class: class1
  containerEdits:
    env: ["BAR=injected"]
    deviceNodes:
    - path: /dev/sub/zero
      hostPath: /dev/zero
      permissions: r
containerEdits:
  env: [ "BOTH=1" ]
"#;

fn devices(files: &[(&str, &str)], auto: &[&str]) -> (tempfile::TempDir, Arc<Devices>) {
    let dir = tempfile::tempdir().unwrap();
    for (name, text) in files {
        let path = dir.path().join(name);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, text).unwrap();
    }
    let devices = Devices::new(Config {
        spec_dirs: vec![dir.path().join("a"), dir.path().join("b")],
        auto_allowed: auto.iter().map(|name| (*name).to_owned()).collect(),
    });
    (dir, devices)
}

fn requests(name: &str) -> Vec<DeviceRequest> {
    vec![DeviceRequest {
        name: name.into(),
        optional: false,
    }]
}

fn granted(names: &[(&str, &str)]) -> Entitlements {
    Entitlements {
        devices: Some(DeviceRights {
            all: false,
            names: names
                .iter()
                .map(|(name, other)| ((*name).to_owned(), (*other).to_owned()))
                .collect(),
        }),
        ..Entitlements::default()
    }
}

fn names(requests: Result<Vec<DeviceRequest>, DeviceError>) -> String {
    match requests {
        Ok(requests) => requests
            .into_iter()
            .map(|d| d.name)
            .collect::<Vec<_>>()
            .join(" "),
        Err(error) => error.to_string(),
    }
}

#[test]
fn a_device_is_asked_for_by_name_kind_wildcard_or_class() {
    let (_dir, devices) = devices(&[("a/x.yaml", FILE)], &[]);
    let ask = |name: &str| names(devices.allowed(&requests(name), &Entitlements::default()));
    assert_eq!(ask("vendor1.com/device=foo"), "vendor1.com/device=foo");
    assert_eq!(ask("vendor1.com/device"), "vendor1.com/device=bar");
    let both = "vendor1.com/device=bar vendor1.com/device=foo";
    assert_eq!(ask("vendor1.com/device=*"), both);
    assert_eq!(ask("class1"), both);
    assert_eq!(
        ask("vendor1.com/device=none"),
        "required device \"vendor1.com/device=none\" is not registered"
    );
    let optional = [DeviceRequest {
        name: "x.com/y".into(),
        optional: true,
    }];
    assert_eq!(
        names(devices.allowed(&optional, &Entitlements::default())),
        ""
    );
}

#[test]
fn a_device_that_was_not_granted_is_refused_at_both_places() {
    let file = FILE.replace("autoallow: true", "autoallow: false");
    let (_dir, devices) = devices(&[("a/x.yaml", &file)], &["vendor1.com/device=bar"]);
    let refused = "device vendor1.com/device=foo is requested by the build but not allowed";
    for rights in [
        Entitlements::default(),
        granted(&[("vendor1.com/device=bar", ""), ("vendor2.com/gone", "")]),
    ] {
        let every_device = requests("vendor1.com/device=*");
        assert_eq!(names(devices.allowed(&every_device, &rights)), refused);
        assert_eq!(
            devices
                .inject(&every_device, &rights)
                .unwrap_err()
                .to_string(),
            refused
        );
    }
    let rights = granted(&[("mine", "vendor1.com/device=foo")]);
    let allowed = devices.allowed(&requests("mine"), &rights).unwrap();
    assert_eq!(allowed, requests("vendor1.com/device=foo"));
    devices.inject(&allowed, &rights).unwrap();
    devices
        .inject(
            &requests("vendor1.com/device=foo"),
            &granted(&[("vendor1.com/device=*", "")]),
        )
        .unwrap();
}

#[test]
fn an_injection_changes_the_spec_and_knows_its_nodes() {
    let (_dir, devices) = devices(&[("a/x.yaml", FILE)], &[]);
    let injection = devices
        .inject(&requests("vendor1.com/device=*"), &Entitlements::default())
        .unwrap();
    let access = Entitlements::default()
        .access(NetworkMode::None, SecurityMode::Sandbox)
        .unwrap();
    let nowhere = std::os::fd::OwnedFd::from(fs::File::open("/dev/null").unwrap());
    let mut spec = ContainerSpec::new(access, nowhere.into(), ProcessSpec::default());
    spec.process.env = vec!["FOO=own".into(), "PATH=/bin".into()];
    spec.devices = injection;
    let DeviceEdits {
        nodes,
        groups,
        hooks,
    } = spec.apply_devices();
    assert!(hooks.is_empty());
    assert_eq!(
        spec.process.env,
        ["FOO=injected", "PATH=/bin", "BOTH=1", "BAR=injected"]
    );
    let [node] = nodes.as_slice() else {
        panic!("{nodes:?}")
    };
    assert_eq!(
        (node.name.as_str(), node.major, node.minor),
        ("sub/zero", 1, 5)
    );
    assert_eq!(node.access, "r");
    assert!(groups.is_empty());
}

#[test]
fn a_file_is_read_again_when_it_changes_and_the_later_folder_counts() {
    let json = r#"{"cdiVersion":"0.5.0","kind":"vendor1.com/device","devices":[{"name":"foo","containerEdits":{"env":["FOO=json"]}}]}"#;
    let (dir, devices) = devices(&[("a/x.yaml", FILE)], &[]);
    assert!(devices.list().iter().all(|device| device.auto_allow));
    fs::create_dir(dir.path().join("b")).unwrap();
    fs::write(dir.path().join("b/y.json"), json).unwrap();
    let list = devices.list();
    let auto: Vec<bool> = list.iter().map(|device| device.auto_allow).collect();
    assert_eq!(auto, [true, false], "{list:?}");
    fs::write(dir.path().join("b/z.json"), json).unwrap();
    assert_eq!(
        devices.list().len(),
        1,
        "two files of one folder are in conflict"
    );
}

#[test]
fn a_file_that_is_wrong_says_why() {
    let of = |text: &str| spec::parse(text).map(|_| ()).unwrap_err();
    let with = |edits: &str| {
        format!(
            "cdiVersion: \"0.6.0\"\nkind: v.com/c\ndevices:\n- name: d\n  containerEdits: {edits}\n"
        )
    };
    for (text, reason) in [
        ("a: 1\n".to_owned(), "no CDI document"),
        (FILE.replace("0.6.0", "9.9.9"), "invalid version \"9.9.9\""),
        (FILE.replace("0.6.0", "0.5.0"), "at least v0.6.0"),
        (
            FILE.replace("vendor1.com/device", "vendor1.com"),
            "invalid kind",
        ),
        (
            FILE.replace("vendor1.com/device", "1.com/x"),
            "invalid vendor",
        ),
        (FILE.replace("name: bar", "name: foo"), "multiple device"),
        (with("{}"), "empty device edits"),
        (with("{env: [X]}"), "invalid environment variable"),
        (with("{env: [X=1], more: 2}"), "no CDI document"),
        (
            with("{deviceNodes: [{path: /dev/x, type: z}]}"),
            "invalid type",
        ),
        (with("{additionalGids: [1]}"), "at least v0.7.0"),
    ] {
        let message = of(&text);
        assert!(message.contains(reason), "{reason}: {message}");
    }
    let bomb = format!(
        "a: &a [x,x,x,x,x,x,x,x,x]\n{}",
        (b'b'..=b'j')
            .map(|c| {
                let (c, p) = (char::from(c), char::from(c - 1));
                format!("{c}: &{c} [*{p},*{p},*{p},*{p},*{p},*{p},*{p},*{p},*{p}]\n")
            })
            .collect::<String>()
    );
    assert!(spec::parse(&bomb).is_err());
    let hook = with("{hooks: [{hookName: x, path: /bin/x}]}");
    assert!(of(&hook).contains("invalid hook name"));
    let hook = with("{hooks: [{hookName: createContainer, path: /bin/x, args: [a], timeout: 3}]}");
    assert!(spec::parse(&hook).is_ok());
}
