//! Devices of a step.

use std::sync::Arc;

use executor::Injection;
use executor::cdi::DeviceRequest;
use llb::pb;

use crate::{BuildRights, OpFailure, Parts};

/// The changes to the step's container for the devices that its op requests.
pub(super) async fn inject(
    parts: &Parts,
    op: &pb::ExecOp,
    rights: &BuildRights,
) -> Result<Injection, OpFailure> {
    if op.cdi_devices.is_empty() {
        return Ok(Injection::default());
    }
    let requests: Vec<DeviceRequest> = op
        .cdi_devices
        .iter()
        .map(|device| DeviceRequest {
            name: device.name.clone(),
            optional: device.optional,
        })
        .collect();
    let Some(devices) = parts.devices.clone() else {
        return match requests.into_iter().find(|device| !device.optional) {
            Some(device) => Err(OpFailure::NotBuilt {
                feature: "CDI devices, which are turned off,",
                detail: device.name,
            }),
            None => Ok(Injection::default()),
        };
    };
    let (devices, rights) = (Arc::clone(&devices), rights.entitlements.clone());
    Ok(task::blocking("devices", move || devices.inject(&requests, &rights)).await?)
}
