//! `selvedge explain`: of a service, why it has as many instances as it has, by the daemon. Of a name or frame it is
//! break-glass: it needs root, and neither the daemon nor its configuration.

use std::fmt::Write as _;
use std::net::IpAddr;
use std::process::ExitCode;

use clap::Args;

use super::{PinArg, SocketArg};
use crate::api::DecisionResource;
use crate::api::client::{self, ClientError};
use crate::explain::{Explanation, Message, Request, explain, hex};
use crate::model::ServiceName;

/// The kernel leaves the frame to the network stack.
const PASSED: u8 = 1;
const TROUBLE: u8 = 2;
/// HTTP's word for a service that there is not.
const NOT_FOUND: u16 = 404;

#[derive(Debug, Args)]
pub(super) struct ExplainArgs {
    /// A service; or a name to ask for; or a frame: hexadecimal digits, or @FILE with its bytes or a hex dump
    #[arg(value_name = "SERVICE|NAME|FRAME")]
    subject: String,
    /// The client that asks for the name
    #[arg(long, value_name = "IP")]
    client: Option<IpAddr>,
    /// The address that it asks; else the node's first of the client's family
    #[arg(long, value_name = "IP")]
    server: Option<IpAddr>,
    /// The type that it asks for, by name or as TYPEnnn
    #[arg(long = "type", value_name = "TYPE", default_value = "A", value_parser = type_code)]
    qtype: u16,
    /// Ask without EDNS
    #[arg(long)]
    no_edns: bool,
    #[command(flatten)]
    pins: PinArg,
    #[command(flatten)]
    socket: SocketArg,
    /// Print as JSON
    #[arg(long)]
    json: bool,
}

fn type_code(name: &str) -> Result<u16, String> {
    crate::explain::type_code(name).ok_or_else(|| "no type of this name; write its number as in TYPE65".to_owned())
}

pub(super) async fn run(args: ExplainArgs) -> ExitCode {
    // A name that clients ask for has a dot.
    if let Ok(service) = ServiceName::new(args.subject.clone())
        && !args.subject.contains('.')
        && let Some(code) = explain_service(&args, &service).await
    {
        return ExitCode::from(code);
    }
    let request = Request {
        subject: args.subject,
        client: args.client,
        server: args.server,
        qtype: args.qtype,
        edns: !args.no_edns,
    };
    let done = explain(&args.pins.pin_dir, &request).await.map_err(|e| e.to_string()).and_then(|explanation| {
        let text = if args.json {
            serde_json::to_string_pretty(&explanation).map_err(|e| format!("explain: {e}"))?
        } else {
            text(&explanation)
        };
        println!("{}", text.trim_end());
        Ok(if explanation.is_answered() { 0 } else { PASSED })
    });
    match done {
        Ok(code) => ExitCode::from(code),
        Err(error) => {
            eprintln!("selvedge: {error}");
            ExitCode::from(TROUBLE)
        }
    }
}

/// `None` where there is no such service, or nobody who would know it.
async fn explain_service(args: &ExplainArgs, service: &ServiceName) -> Option<u8> {
    let decision = match client::decision(&args.socket.socket, service).await {
        Ok(decision) => decision,
        Err(ClientError::Refused(problem)) if problem.status == NOT_FOUND => return None,
        Err(ClientError::Connect { .. }) => {
            eprintln!("selvedge: no daemon at {}, so {service} is taken for a name", args.socket.socket.display());
            return None;
        }
        Err(error) => {
            eprintln!("selvedge: {error}");
            return Some(TROUBLE);
        }
    };
    let text = if args.json { serde_json::to_string_pretty(&decision) } else { Ok(sentence(&decision)) };
    match text {
        Ok(text) => {
            println!("{text}");
            Some(0)
        }
        Err(error) => {
            eprintln!("selvedge: explain: {error}");
            Some(TROUBLE)
        }
    }
}

fn sentence(decision: &DecisionResource) -> String {
    format!("{}: {}", decision.service, decision.reason)
}

fn text(explanation: &Explanation) -> String {
    let mut out = String::new();
    // Writing into a String does not fail.
    let Explanation { verdict, meaning, generation, .. } = explanation;
    let _ = writeln!(out, "verdict: {verdict} - {meaning}\ntables:  generation {generation}");
    let fate = match (&explanation.reply_frame, explanation.action.as_str()) {
        (Some(_), _) => "turned into its answer and sent back out".to_owned(),
        (None, "passed") => "goes on to the network stack, not a byte changed".to_owned(),
        (None, "dropped") => "ends here".to_owned(),
        (None, other) => other.to_owned(),
    };
    let _ = writeln!(out, "frame:   {fate}");
    dump(&mut out, "frame", &explanation.frame);
    if let Some(query) = &explanation.query {
        message(&mut out, "query", query);
    }
    if let Some(reply) = &explanation.reply_frame {
        dump(&mut out, "reply", reply);
    }
    if let Some(reply) = &explanation.reply {
        message(&mut out, "reply", reply);
    }
    if let Some(asked) = &explanation.daemon {
        let server = asked.server;
        match (&asked.reply, &asked.problem) {
            (Some(reply), _) => {
                let _ = writeln!(out, "\nthe daemon at {server} answers this (asked from this machine):");
                message(&mut out, "its reply", reply);
            }
            (None, problem) => {
                let _ = writeln!(out, "\nthe daemon at {server}: {}", problem.as_deref().unwrap_or("no answer"));
            }
        }
    }
    out
}

fn dump(out: &mut String, what: &str, digits: &str) {
    let bytes = hex::parse(digits).unwrap_or_default();
    let _ = write!(out, "\n{what}, {} bytes\n{}", bytes.len(), hex::dump(&bytes));
}

fn message(out: &mut String, what: &str, message: &Message) {
    let _ = writeln!(out, "\n{what}, {} -> {}", message.from, message.to);
    let Some(said) = &message.decoded else {
        let _ = writeln!(out, "  cannot be read: {}", message.problem.as_deref().unwrap_or_default());
        return;
    };
    let _ = writeln!(out, "  id {}, opcode {}, {}, flags: {}", said.id, said.opcode, said.rcode, said.flags.join(" "));
    if let Some(edns) = &said.edns {
        let dnssec_ok = if edns.dnssec_ok { ", do" } else { "" };
        let _ = writeln!(out, "  EDNS version {}, payload {}{dnssec_ok}", edns.version, edns.payload);
        for (code, data) in &edns.options {
            let _ = writeln!(out, "  EDNS option {code}: {data}");
        }
    }
    let sections = [
        ("question", &said.questions),
        ("answer", &said.answers),
        ("authority", &said.authorities),
        ("additional", &said.additionals),
    ];
    for (section, lines) in sections {
        for line in lines {
            let _ = writeln!(out, "  {section:<10}  {line}");
        }
    }
}
