//! Names of steps: `[linux/amd64 build 2/5] RUN make`.

use llb::build::Env;
use oci::Platform;

use super::stage::StageState;
use crate::shell;

/// Counts the step and puts stage, number and platform in front of its text.
pub(crate) fn prefix(
    stage: &mut StageState,
    text: &str,
    with_platform: bool,
    platform: Option<&Platform>,
    env: &dyn shell::Env,
) -> String {
    if stage.cmd_total == 0 {
        return text.to_owned();
    }
    let mut out = String::from("[");
    if (with_platform || stage.repeats.is_some())
        && let Some(platform) = platform
    {
        out.push_str(&platform.format_all());
        out.push_str(&cross(platform, env));
        out.push(' ');
    }
    if !stage.stage_name.is_empty() {
        out.push_str(&stage.stage_name);
        out.push(' ');
    }
    stage.cmd_index += 1;
    let total = stage.cmd_total.to_string();
    out.push_str(&format!(
        "{:>width$}/{total}] ",
        stage.cmd_index,
        width = total.len()
    ));
    if stage.cmd_is_onbuild {
        out.push_str("ONBUILD ");
    }
    out + text
}

/// `->arm64` for a step that runs on one platform and builds for another.
fn cross(base: &Platform, env: &dyn shell::Env) -> String {
    let Some(mut target) = target_of(env) else {
        return String::new();
    };
    if target.os.is_empty() {
        target.os.clone_from(&base.os);
    }
    if target.architecture.is_empty() {
        target.architecture.clone_from(&base.architecture);
    }
    let target = target.normalize();
    if target.os != base.os {
        return format!("->{}", target.format_all());
    }
    if target.architecture == base.architecture {
        return String::new();
    }
    let variant = if target.variant.is_empty() {
        String::new()
    } else {
        format!("/{}", target.variant)
    };
    format!("->{}{variant}", target.architecture)
}

/// The platform of the `TARGET…` arguments that the stage declares.
fn target_of(env: &dyn shell::Env) -> Option<Platform> {
    let whole = env.get("TARGETPLATFORM").map(Platform::parse);
    if let Some(Ok(platform)) = whole {
        return Some(platform);
    }
    let mut platform = Platform::default();
    let mut any = false;
    for (key, field) in [
        ("TARGETOS", &mut platform.os),
        ("TARGETARCH", &mut platform.architecture),
        ("TARGETVARIANT", &mut platform.variant),
    ] {
        if let Some(value) = env.get(key) {
            value.clone_into(field);
            any = true;
        }
    }
    any.then_some(platform)
}

/// No variables.
pub(crate) fn no_env() -> Env {
    Env::default()
}
