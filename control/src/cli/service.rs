//! `selvedge service`: services, and orders of how many instances one has.

use std::process::ExitCode;

use clap::Subcommand;

use super::order::{Give, Look, Reason, Watch, follow, giver, plain};
use super::paint::{Paint, Tone, table};
use super::{Done, finish};
use crate::api::{OverrideOrder, ServiceResource, client};
use crate::model::{Override, ServiceName, Timestamp};

#[derive(Debug, Subcommand)]
pub(super) enum ServiceCommand {
    /// List services: instances wanted and serving, orders, what they are answered from
    #[command(after_help = "Examples:\n  selvedge service list\n  selvedge service list --watch --json\n  \
        selvedge service list --json | jq -r '.services[] | select(.ordered) | .name'")]
    List(Watch),
    /// Show one service
    #[command(after_help = "Example:\n  selvedge service show video")]
    Show {
        /// The service
        service: ServiceArg,
        #[command(flatten)]
        look: Look,
    },
    /// Keep the number of its instances as it is, whatever its plan says, until it is resumed
    ///
    /// One that dies is still replaced. Survives restarts.
    #[command(after_help = "Example:\n  selvedge service pause video --reason 'load test until noon'")]
    Pause {
        /// The service
        service: ServiceArg,
        #[command(flatten)]
        reason: Reason,
        #[command(flatten)]
        give: Give,
    },
    /// Have just so many instances, within its maximum and the node's, until it is resumed
    #[command(after_help = "Examples:\n  selvedge service pin video 4 --reason 'match day'\n  \
        selvedge service pin video 2 --dry-run")]
    Pin {
        /// The service
        service: ServiceArg,
        /// Instances
        replicas: u32,
        #[command(flatten)]
        reason: Reason,
        #[command(flatten)]
        give: Give,
    },
    /// Take all its instances out of the answers and stop them when their clients have left, until it is resumed
    ///
    /// The same as pin 0. What is answered meanwhile, its fallback groups or its on_all_down say.
    #[command(after_help = "Example:\n  selvedge service drain video --reason 'storage is replaced'")]
    Drain {
        /// The service
        service: ServiceArg,
        #[command(flatten)]
        reason: Reason,
        #[command(flatten)]
        give: Give,
    },
    /// Let its plan decide again
    #[command(after_help = "Example:\n  selvedge service resume video")]
    Resume {
        /// The service
        service: ServiceArg,
        #[command(flatten)]
        give: Give,
    },
}

/// A service's name, checked where it is read.
#[derive(Debug, Clone)]
pub(super) struct ServiceArg(ServiceName);

impl std::str::FromStr for ServiceArg {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        ServiceName::new(text).map(Self).map_err(|e| e.to_string())
    }
}

pub(super) async fn run(command: ServiceCommand) -> ExitCode {
    finish(carry_out(command).await)
}

async fn carry_out(command: ServiceCommand) -> Done {
    match command {
        ServiceCommand::List(Watch { look, watch }) => {
            if watch {
                return follow(&look, "services", |object| read(object, line)).await;
            }
            let list = client::services(look.socket()).await.map_err(plain)?;
            look.print(&list, || list_text(&list.services, Timestamp::now(), Paint::detect()))
        }
        ServiceCommand::Show { service, look } => {
            let service = client::service(look.socket(), &service.0).await.map_err(plain)?;
            look.print(&service, || show_text(&service, Timestamp::now()))
        }
        ServiceCommand::Pause { service, reason, give } => {
            order(&service, Some(Override::Pause), reason.reason, &give).await
        }
        ServiceCommand::Pin { service, replicas, reason, give } => {
            order(&service, Some(Override::Pin { replicas }), reason.reason, &give).await
        }
        ServiceCommand::Drain { service, reason, give } => {
            order(&service, Some(Override::Pin { replicas: 0 }), reason.reason, &give).await
        }
        ServiceCommand::Resume { service, give } => order(&service, None, String::new(), &give).await,
    }
}

async fn order(service: &ServiceArg, what: Option<Override>, reason: String, give: &Give) -> Done {
    let order = what.map(|what| OverrideOrder { what, reason });
    let outcome = client::set_override(give.socket(), &service.0, order.as_ref(), give.terms()).await.map_err(plain)?;
    give.tell(&outcome)
}

/// An object of the watch as a line.
pub(super) fn read<T: serde::de::DeserializeOwned>(object: &serde_json::Value, line: impl Fn(&T) -> String) -> String {
    serde_json::from_value(object.clone()).map_or_else(|_| object.to_string(), |object| line(&object))
}

fn line(service: &ServiceResource) -> String {
    let ordered = service.ordered.as_ref().map(|order| format!("  {} by {}", words(order.what), order.by));
    let ServiceResource { name, wanted, serving, basis, .. } = service;
    format!("{name}  wanted {wanted}  serving {serving}  {basis}{}", ordered.unwrap_or_default())
}

fn words(what: Override) -> String {
    match what {
        Override::Pause => "paused".to_owned(),
        Override::Pin { replicas } => format!("pinned to {replicas}"),
    }
}

fn list_text(services: &[ServiceResource], now: Timestamp, paint: Paint) -> String {
    if services.is_empty() {
        return "no services are configured".to_owned();
    }
    let rows: Vec<_> = services
        .iter()
        .map(|s| {
            let tone = if s.serving >= s.wanted { Tone::Good } else { Tone::Under };
            let ordered = s.ordered.as_ref().map(|o| format!("{} {}", words(o.what), giver(o, now)));
            vec![
                (s.name.to_string(), None),
                (s.technology.label().to_owned(), None),
                (s.wanted.to_string(), None),
                (s.serving.to_string(), Some(tone)),
                (s.basis.clone(), None),
                (s.revision.to_string(), None),
                (ordered.unwrap_or_default(), Some(Tone::Under)),
            ]
        })
        .collect();
    table(&["SERVICE", "TECHNOLOGY", "WANTED", "SERVING", "ANSWERED FROM", "REVISION", "ORDERED"], &rows, paint)
}

fn show_text(service: &ServiceResource, now: Timestamp) -> String {
    let ids: Vec<String> = service.instances.iter().map(ToString::to_string).collect();
    let ordered = service.ordered.as_ref();
    let ordered = ordered.map_or_else(|| "nothing".to_owned(), |o| format!("{} {}", words(o.what), giver(o, now)));
    let rows = [
        ("names", service.names.join(" ")),
        ("image", format!("{} ({})", service.image, service.technology.label())),
        (
            "instances",
            format!("{} wanted, {} serving, {} to {}", service.wanted, service.serving, service.min, service.max),
        ),
        ("ids", ids.join(" ")),
        ("ordered", ordered),
        ("decision", service.decision.clone()),
        ("answers", format!("{}: {}; TTL {}", service.basis, service.basis_reason, service.ttl_s)),
        ("revision", service.revision.to_string()),
    ];
    let lines = rows.map(|(what, text)| format!("{what:10}{text}"));
    format!("{}\n{}", service.name, lines.join("\n"))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "tests fail by panicking")]
    use super::*;
    use crate::model::{InstanceId, Order, Technology};

    #[test]
    fn an_order_is_shown_with_its_giver() {
        let what = Override::Pin { replicas: 4 };
        let order = Order { what, by: "ann".into(), at: Timestamp(1000), reason: "match day".into(), revision: 7 };
        let service = ServiceResource {
            name: ServiceName::new("video").unwrap(),
            revision: 7,
            names: vec!["video.edge.test.".to_owned()],
            technology: Technology::Docker,
            image: "video:3".to_owned(),
            min: 1,
            max: 8,
            capacity: 20.0,
            ttl_s: 30,
            wanted: 4,
            serving: 1,
            ordered: Some(order),
            decision: "4: pinned".to_owned(),
            basis: "serving".to_owned(),
            basis_reason: "instances serve".to_owned(),
            instances: vec![InstanceId::from_number(1)],
        };
        let now = Timestamp(181_000);
        assert_eq!(
            list_text(std::slice::from_ref(&service), now, Paint::plain()),
            "SERVICE  TECHNOLOGY  WANTED  SERVING  ANSWERED FROM  REVISION  ORDERED\n\
             video    docker      4       1        serving        7         pinned to 4 by ann 3m ago: match day\n"
        );
        let shown = show_text(&service, now);
        assert!(shown.contains("ordered   pinned to 4 by ann 3m ago: match day\n"), "{shown}");
        assert_eq!(line(&service), "video  wanted 4  serving 1  serving  pinned to 4 by ann");
    }
}
