//! `selvedge instance`: instances, and orders to take one out of the answers.

use std::process::ExitCode;

use clap::Subcommand;

use super::order::{Give, Look, Reason, Watch, follow, giver, plain};
use super::paint::{Paint, Tone, age, table};
use super::service::read;
use super::{Done, finish};
use crate::api::{DrainOrder, InstanceResource, client};
use crate::model::{AddressPair, Drain, InstanceId, InstanceState, Timestamp};

#[derive(Debug, Subcommand)]
pub(super) enum InstanceCommand {
    /// List instances that are not stopped
    #[command(after_help = "Examples:\n  selvedge instance list\n  selvedge instance list --watch\n  \
        selvedge instance list --json | jq -r '.instances[] | select(.state == \"serving\") | .id'")]
    List(Watch),
    /// Show one instance
    #[command(after_help = "Example:\n  selvedge instance show 0a1b2c3d")]
    Show {
        /// The instance
        instance: InstanceArg,
        #[command(flatten)]
        look: Look,
    },
    /// Take it out of the answers; another takes its place
    ///
    /// It stops when its clients have left, or stays with --keep and can be put back.
    #[command(after_help = "Examples:\n  selvedge instance drain 0a1b2c3d --reason 'answers slowly'\n  \
        selvedge instance drain 0a1b2c3d --keep    # to look at it; selvedge instance undrain puts it back")]
    Drain {
        /// The instance
        instance: InstanceArg,
        /// Let it run on
        #[arg(long)]
        keep: bool,
        #[command(flatten)]
        reason: Reason,
        #[command(flatten)]
        give: Give,
    },
    /// Put one back into the answers that was kept
    #[command(after_help = "Example:\n  selvedge instance undrain 0a1b2c3d")]
    Undrain {
        /// The instance
        instance: InstanceArg,
        #[command(flatten)]
        give: Give,
    },
    /// Stop it at once, whoever is talking to it
    #[command(after_help = "Example:\n  selvedge instance remove 0a1b2c3d --reason 'was broken into'")]
    Remove {
        /// The instance
        instance: InstanceArg,
        #[command(flatten)]
        reason: Reason,
        #[command(flatten)]
        give: Give,
    },
}

/// An instance's identifier, checked where it is read.
#[derive(Debug, Clone)]
pub(super) struct InstanceArg(InstanceId);

impl std::str::FromStr for InstanceArg {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        InstanceId::new(text).map(Self).map_err(|e| e.to_string())
    }
}

pub(super) async fn run(command: InstanceCommand) -> ExitCode {
    finish(carry_out(command).await)
}

async fn carry_out(command: InstanceCommand) -> Done {
    match command {
        InstanceCommand::List(Watch { look, watch }) => {
            if watch {
                return follow(&look, "instances", |object| read(object, line)).await;
            }
            let list = client::instances(look.socket()).await.map_err(plain)?;
            look.print(&list, || list_text(&list.instances, Timestamp::now(), Paint::detect()))
        }
        InstanceCommand::Show { instance, look } => {
            let instance = client::instance(look.socket(), &instance.0).await.map_err(plain)?;
            look.print(&instance, || show_text(&instance, Timestamp::now()))
        }
        InstanceCommand::Drain { instance, keep, reason, give } => {
            let what = if keep { Drain::Keep } else { Drain::Stop };
            order(&instance, Some(what), reason.reason, &give).await
        }
        InstanceCommand::Undrain { instance, give } => order(&instance, None, String::new(), &give).await,
        InstanceCommand::Remove { instance, reason, give } => {
            order(&instance, Some(Drain::Remove), reason.reason, &give).await
        }
    }
}

async fn order(instance: &InstanceArg, what: Option<Drain>, reason: String, give: &Give) -> Done {
    let order = what.map(|what| DrainOrder { what, reason });
    let outcome = client::set_drain(give.socket(), &instance.0, order.as_ref(), give.terms()).await.map_err(plain)?;
    give.tell(&outcome)
}

fn addresses(pair: &AddressPair) -> String {
    pair.iter().map(|address| address.to_string()).collect::<Vec<_>>().join(" ")
}

fn line(one: &InstanceResource) -> String {
    let i = &one.instance;
    format!("{}  {}  {}  {}  {}", i.id, i.service, i.state.label(), addresses(&i.addresses), i.reason)
}

fn list_text(instances: &[InstanceResource], now: Timestamp, paint: Paint) -> String {
    if instances.is_empty() {
        return "no instances".to_owned();
    }
    let rows: Vec<_> = instances
        .iter()
        .map(|one| {
            let i = &one.instance;
            let tone = match i.state {
                InstanceState::Serving => Tone::Good,
                InstanceState::Failed => Tone::Bad,
                _ => Tone::Under,
            };
            let ordered = one.ordered.as_ref().map(|o| format!("{} {}", o.what.label(), giver(o, now)));
            vec![
                (i.id.to_string(), None),
                (i.service.to_string(), None),
                (i.state.label().to_owned(), Some(tone)),
                (age(now.millis_since(i.since)), None),
                (addresses(&i.addresses), None),
                (format!("{:.0}%", one.share * 100.0), None),
                (one.weight.map_or_else(|| "-".to_owned(), |weight| weight.to_string()), None),
                (ordered.unwrap_or_default(), Some(Tone::Under)),
            ]
        })
        .collect();
    table(&["INSTANCE", "SERVICE", "STATE", "SINCE", "ADDRESSES", "SHARE", "WEIGHT", "ORDERED"], &rows, paint)
}

fn show_text(one: &InstanceResource, now: Timestamp) -> String {
    let i = &one.instance;
    let ordered = one.ordered.as_ref();
    let ordered = ordered.map_or_else(|| "nothing".to_owned(), |o| format!("{} {}", o.what.label(), giver(o, now)));
    let weight = one.weight.map(|weight| format!(", weight {weight} by its load")).unwrap_or_default();
    let share = format!("{:.0}% of its service's{weight}", one.share * 100.0);
    let answers = if one.published { share } else { "none".to_owned() };
    let late = one.drain.as_ref().filter(|drain| !drain.late_clients.is_empty());
    let late = late.map(|drain| drain.late_clients.iter().map(ToString::to_string).collect::<Vec<_>>().join(" "));
    let to = one.forwarded_to.as_ref().map(|to| format!("; new ones go to {to}")).unwrap_or_default();
    let rows = [
        ("service", i.service.to_string()),
        ("state", format!("{} for {}: {}", i.state.label(), age(now.millis_since(i.since)), i.reason)),
        ("addresses", addresses(&i.addresses)),
        ("handle", i.handle.clone().unwrap_or_default()),
        ("answers", answers),
        ("ordered", ordered),
        ("late", late.unwrap_or_else(|| "nobody".to_owned()) + &to),
        ("revision", one.revision.to_string()),
    ];
    let lines = rows.map(|(what, text)| format!("{what:10}{text}"));
    format!("{} ({})\n{}", i.id, i.technology.label(), lines.join("\n"))
}
