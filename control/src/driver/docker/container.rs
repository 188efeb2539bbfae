//! One instance as a container: its name, labels and limits, and the reverse.

use std::collections::HashMap;

use bollard::models::{
    ContainerCreateBody, ContainerInspectResponse, ContainerUpdateBody, HostConfig, HostConfigLogConfig, RestartPolicy,
    RestartPolicyNameEnum,
};

use crate::driver::{InstanceSpec, Resources};
use crate::model::{InstanceId, OwnerId};

/// Label: whose it is.
pub(super) const OWNER: &str = "selvedge.owner";
/// Label: which instance it is.
pub(super) const INSTANCE: &str = "selvedge.instance";
/// Label: what it is a copy of.
pub(super) const SERVICE: &str = "selvedge.service";

/// Most processes and threads in a container.
const PIDS: i64 = 512;

/// The container's name. Labels decide whose it is; the name is for people, and keeps two of the same instance from
/// existing at once.
pub(super) fn name(owner: &OwnerId, id: &InstanceId) -> String {
    format!("selvedge-{owner}-{id}")
}

/// Labels that a container must have to be ours; with `id` also to be that instance.
pub(super) fn filter(owner: &OwnerId, id: Option<&InstanceId>) -> HashMap<String, Vec<String>> {
    let instance = id.map_or_else(|| INSTANCE.to_owned(), |id| format!("{INSTANCE}={id}"));
    HashMap::from([("label".to_owned(), vec![format!("{OWNER}={owner}"), instance])])
}

/// What the engine is asked to create.
pub(super) fn body(spec: &InstanceSpec) -> ContainerCreateBody {
    let (nano_cpus, memory) = limits(spec.resources);
    let host = HostConfig {
        // The network is ours: the engine gives an empty namespace with a loopback.
        network_mode: Some("none".to_owned()),
        nano_cpus: Some(nano_cpus),
        memory: Some(memory),
        // Equal to memory: no swap.
        memory_swap: Some(memory),
        pids_limit: Some(PIDS),
        // Whether it runs is ours to decide: the engine restarts nothing.
        restart_policy: Some(RestartPolicy { name: Some(RestartPolicyNameEnum::NO), maximum_retry_count: None }),
        log_config: Some(HostConfigLogConfig {
            typ: Some("json-file".to_owned()),
            config: Some(HashMap::from([
                ("max-size".to_owned(), "1m".to_owned()),
                ("max-file".to_owned(), "2".to_owned()),
            ])),
        }),
        ..HostConfig::default()
    };
    ContainerCreateBody {
        image: Some(spec.image.clone()),
        labels: Some(HashMap::from([
            (OWNER.to_owned(), spec.owner.to_string()),
            (INSTANCE.to_owned(), spec.id.to_string()),
            (SERVICE.to_owned(), spec.service.to_string()),
        ])),
        host_config: Some(host),
        ..ContainerCreateBody::default()
    }
}

/// What the engine is asked to change of one that runs.
pub(super) fn update(resources: Resources) -> ContainerUpdateBody {
    let (nano_cpus, memory) = limits(resources);
    ContainerUpdateBody {
        nano_cpus: Some(nano_cpus),
        memory: Some(memory),
        memory_swap: Some(memory),
        ..ContainerUpdateBody::default()
    }
}

/// Limits in the engine's units: billionths of a processor, and bytes.
fn limits(resources: Resources) -> (i64, i64) {
    #[expect(clippy::cast_possible_truncation, reason = "a float saturates, and no node has 2^63 nano-CPUs")]
    let nano_cpus = (resources.vcpus * 1e9).round() as i64;
    (nano_cpus, i64::try_from(resources.memory_mib.saturating_mul(1 << 20)).unwrap_or(i64::MAX))
}

/// The process whose namespaces are the container's, where it runs.
pub(super) fn pid(inspected: &ContainerInspectResponse) -> Option<u32> {
    let state = inspected.state.as_ref()?;
    let pid = state.pid.and_then(|pid| u32::try_from(pid).ok()).filter(|pid| *pid != 0)?;
    state.running.unwrap_or(false).then_some(pid)
}

/// What an exit code tells, for people.
pub(super) fn exit_cause(code: i64) -> String {
    match code {
        129..=192 => format!("exit code {code} (killed by signal {})", code - 128),
        _ => format!("exit code {code}"),
    }
}

/// True for what may be an image's name, tag or digest. What is not would change the meaning of a request's path.
pub(super) fn is_image_name(text: &str) -> bool {
    let allowed = |c: char| c.is_ascii_alphanumeric() || matches!(c, '.' | '_' | '-' | '/' | ':' | '@');
    !text.is_empty() && !text.starts_with('/') && !text.contains("..") && text.chars().all(allowed)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "tests fail by panicking")]
    use super::*;
    use crate::model::ServiceName;

    #[test]
    fn limits_and_labels_are_what_the_service_asks_for() {
        let spec = InstanceSpec {
            id: InstanceId::from_number(1),
            owner: OwnerId::from_number(2),
            service: ServiceName::new("video").unwrap(),
            image: "video:1".to_owned(),
            guest: crate::model::Guest::default(),
            resources: Resources { vcpus: 0.5, memory_mib: 256 },
        };
        let body = body(&spec);
        let host = body.host_config.unwrap();
        assert_eq!(host.nano_cpus, Some(500_000_000));
        assert_eq!((host.memory, host.memory_swap), (Some(268_435_456), Some(268_435_456)));
        assert_eq!(host.network_mode.as_deref(), Some("none"));
        assert_eq!(body.labels.unwrap().get(OWNER).unwrap(), "000000000002");
    }

    #[test]
    fn image_names_cannot_reach_other_paths() {
        for good in ["nginx", "nginx:1.22", "reg.example:5000/a/b@sha256:00ff", "sha256:00ff"] {
            assert!(is_image_name(good), "{good}");
        }
        for bad in ["", "../containers", "a/../../b", "a?b", "a#b", "a b", "/etc", "a%2e"] {
            assert!(!is_image_name(bad), "{bad}");
        }
    }

    #[test]
    fn a_signal_is_named() {
        assert_eq!(exit_cause(137), "exit code 137 (killed by signal 9)");
        assert_eq!(exit_cause(1), "exit code 1");
    }
}
