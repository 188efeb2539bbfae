//! The words of `selvedged` and `selvedge`. Exit codes: 0 done, 1 could not be done, 2 wrong usage or
//! wrong configuration; `table diff`, `net` and `explain` have their own, as their help says.

mod bench;
mod capture;
mod catalogue;
mod configuration;
mod dataplane;
mod explain;
mod image;
mod instance;
mod net;
mod order;
mod paint;
mod replay;
mod service;
mod status;
mod store;
mod table;
mod top;
mod tune;

use std::io::Write;
use std::path::PathBuf;
use std::process::ExitCode;

use clap::{Args, CommandFactory, Parser, Subcommand};
use clap_complete::Shell;

use crate::bench::SummonOptions;
use crate::daemon::DaemonOptions;
use crate::load::LoadArgs;

/// Exit code for wrong usage or a wrong configuration.
const WRONG: u8 = 2;
/// Where the package puts the configuration.
const CONFIG: &str = "/etc/selvedge/selvedge.toml";
/// Where the daemon's API listens unless configured otherwise.
const SOCKET: &str = "/run/selvedge/selvedged.sock";

/// The edge dataplane daemon: answers DNS in the kernel, and has the right number of instances running.
///
/// SIGHUP reloads the configuration (a wrong one is refused and the old one stays), SIGTERM ends the daemon.
/// Attached programs, tables and instances outlive it.
#[derive(Debug, Parser)]
#[command(name = "selvedged", version, after_help = "Example:\n  selvedged --config /etc/selvedge/selvedge.toml")]
pub struct DaemonArgs {
    /// The configuration file
    #[arg(long, value_name = "FILE", default_value = CONFIG)]
    config: PathBuf,
    /// Log one JSON object per line
    #[arg(long)]
    json_log: bool,
}

impl From<DaemonArgs> for DaemonOptions {
    fn from(args: DaemonArgs) -> Self {
        Self { config: args.config, json_log: args.json_log }
    }
}

/// Looks at and works on a node of Selvedge.
#[derive(Debug, Parser)]
#[command(
    name = "selvedge",
    version,
    after_help = "Examples:\n  selvedge status\n  selvedge config check /etc/selvedge/selvedge.toml\n  \
                  selvedge dataplane detach      # works without the daemon"
)]
pub struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Show services, instances and the XDP program
    #[command(
        after_help = "Examples:\n  selvedge status\n  selvedge status --json | jq '.services[].instances[].instance.state'"
    )]
    Status(StatusArgs),
    /// Watch the same, live; q ends
    #[command(after_help = "Examples:\n  selvedge top\n  selvedge top --socket /run/other/selvedged.sock")]
    Top(TopArgs),
    /// Check configuration files, show the one in force, take another
    #[command(after_help = "Examples:\n  selvedge config check /etc/selvedge/selvedge.toml\n  \
        selvedge config reload --dry-run")]
    Config {
        #[command(subcommand)]
        command: ConfigCommand,
    },
    /// Look at services; pause, pin, drain or resume one
    #[command(
        after_help = "Examples:\n  selvedge service list\n  selvedge service pin video 4 --reason 'match day'\n  \
        selvedge service resume video"
    )]
    Service {
        #[command(subcommand)]
        command: service::ServiceCommand,
    },
    /// Look at instances; take one out of the answers, put it back, remove it
    #[command(after_help = "Examples:\n  selvedge instance list --watch\n  selvedge instance drain 0a1b2c3d --keep")]
    Instance {
        #[command(subcommand)]
        command: instance::InstanceCommand,
    },
    /// Dump, restore or check what survives a restart
    #[command(after_help = "Examples:\n  selvedge store dump > store.json\n  selvedge store check")]
    Store {
        #[command(subcommand)]
        command: store::StoreCommand,
    },
    /// Print the OpenAPI document of the daemon's interface; needs no daemon
    #[command(after_help = "Example:\n  selvedge openapi | jq -r '.paths | keys[]'")]
    Openapi,
    /// Look at, check, put on or take off the program in the kernel; works without the daemon
    #[command(after_help = "Examples:\n  selvedge dataplane show\n  selvedge dataplane verify\n  \
        selvedge dataplane detach eth0\n  selvedge dataplane attach eth0")]
    Dataplane {
        #[command(subcommand)]
        command: DataplaneCommand,
    },
    /// Look at the last published tables, compare them, go back to one
    #[command(
        after_help = "Examples:\n  selvedge table list\n  selvedge table diff\n  selvedge table rollback 17\n  selvedge table release"
    )]
    Table {
        #[command(subcommand)]
        command: table::TableCommand,
    },
    /// Compare the declared networks with the kernel's, make them so, show what was repaired
    #[command(
        after_help = "Examples:\n  selvedge net plan\n  selvedge net apply\n  selvedge net show --json | jq .repairs"
    )]
    Net {
        #[command(subcommand)]
        command: net::NetCommand,
    },
    /// Say what the kernel does with a query or a frame, and why; works without the daemon
    ///
    /// Runs the program on the live tables without leaving a trace in them: nothing is counted, no turn is used up.
    /// Exit codes: 0 answered in the kernel, 1 passed on to the daemon, 2 trouble.
    #[command(after_help = "Examples:\n  selvedge explain video        # a service: why it has as many instances\n  \
                      selvedge explain video.edge.example --client 192.0.2.7 --type AAAA\n  \
                      selvedge explain @frame.bin\n  tcpdump -c 1 -XX udp port 53 2>/dev/null | sed 1d > frame; selvedge explain @frame")]
    Explain(explain::ExplainArgs),
    /// Tell of queries as the kernel answers or passes them: what came in, what went out, why; works without the daemon
    ///
    /// Filter, sample and rate are looked at in the kernel. However this ends, it is switched off there. Exit codes: 0 done,
    /// 1 it could not be done, 2 wrong usage.
    #[command(after_help = "Examples:\n  selvedge capture name=video.edge.example\n  \
        selvedge capture verdict=limited,denied --count 100 --json\n  \
        selvedge capture sample=1000 client=192.0.2.0/24 -w queries.pcapng --duration 60s\n  \
        selvedge capture -w - | tshark -r -")]
    Capture(capture::CaptureArgs),
    /// Remove everything that Selvedge made on this node: program, tables, instances, ports, bridges, settings
    #[command(
        after_help = "Examples:\n  selvedge clear          # only says what is there\n  selvedge clear --yes    # removes it; selvedged must be stopped"
    )]
    Clear {
        /// The configuration file
        #[arg(long, value_name = "FILE", default_value = CONFIG)]
        config: PathBuf,
        /// Really remove
        #[arg(long)]
        yes: bool,
    },
    /// Work on this node's repository of images; works without the daemon
    #[command(
        after_help = "Examples:\n  selvedge image list\n  selvedge image pull registry.example:5000/uni/web:1\n  selvedge image gc --dry-run"
    )]
    Image {
        #[command(subcommand)]
        command: image::ImageCommand,
    },
    /// Show what each technology costs: size, times, memory, throughput, isolation
    #[command(after_help = "Examples:\n  selvedge catalog\n  \
        selvedge catalog --json | jq '.entries[] | {technology, image, allocation_ms}'")]
    Catalog(catalogue::CatalogueArgs),
    /// Say which technology meets a service's requirements and takes least, and why
    ///
    /// Exit codes: 0 there is one, 1 there is none on this node, 2 wrong usage or configuration.
    #[command(after_help = "Examples:\n  selvedge select --start-within 20ms --memory 16M\n  \
        selvedge select --isolation vm --throughput 200M --json | jq -r .technology\n  \
        selvedge select --feature linux-programs --technologies docker,spt")]
    Select(catalogue::SelectArgs),
    /// Run predictors over a recorded load and say how good forecasts and supply were; needs no daemon
    ///
    /// Exit codes: 0 done, 1 a file could not be read or written, 2 wrong usage or a file that is no recorded load.
    #[command(after_help = "Examples:\n  selvedge replay load.csv\n  \
        selvedge replay load.csv --json | jq .predictors.select.rmse\n  \
        selvedge replay load.csv --predictor 'ema3,sarima(1,1,1)(0,1,1)48' --capacity 50 --svg load.svg")]
    Replay(replay::ReplayArgs),
    /// Try policies on a recorded load and propose one, with what the others would have cost; needs no daemon
    ///
    /// Exit codes: 0 done, 1 a file could not be read, 2 wrong usage or a file that is no recorded load.
    #[command(after_help = "Examples:\n  selvedge tune load.csv\n  \
        selvedge tune load.csv --capacity 50 --short 1\n  \
        selvedge tune load.csv --json | jq .proposed")]
    Tune(tune::TuneArgs),
    /// Measure on this machine; needs root, touches nothing that is in force
    Bench {
        #[command(subcommand)]
        command: BenchCommand,
    },
    /// Offer load: look the name up for each request, then download over HTTP
    Load(Box<LoadArgs>),
    /// Print shell completions
    #[command(after_help = "Example:\n  selvedge completions bash > /etc/bash_completion.d/selvedge")]
    Completions {
        /// For which shell
        shell: Shell,
    },
    /// Write the manual pages into a directory
    #[command(hide = true)]
    Man {
        /// The directory
        directory: PathBuf,
    },
}

#[derive(Debug, Args)]
struct SocketArg {
    /// The daemon's API socket
    #[arg(long, value_name = "PATH", default_value = SOCKET, env = "SELVEDGE_SOCKET")]
    socket: PathBuf,
}

#[derive(Debug, Args)]
struct StatusArgs {
    #[command(flatten)]
    socket: SocketArg,
    /// Print the whole status document as JSON
    #[arg(long)]
    json: bool,
}

#[derive(Debug, Args)]
struct TopArgs {
    #[command(flatten)]
    socket: SocketArg,
}

#[derive(Debug, Subcommand)]
enum ConfigCommand {
    /// Check a file without any effect; exit code 2 and one line per problem where it is wrong
    #[command(
        after_help = "Example:\n  selvedge config check /etc/selvedge/selvedge.toml && systemctl reload selvedged"
    )]
    Check {
        /// The file
        #[arg(default_value = CONFIG)]
        file: PathBuf,
    },
    /// Show the configuration in force, where it came from, and what was refused
    #[command(after_help = "Examples:\n  selvedge config show\n  selvedge config show --json | jq .problems")]
    Show(order::Look),
    /// Have the daemon check a configuration, write it into its own file and take it; a wrong one changes nothing
    ///
    /// As installed the daemon may not write below /etc: write the file yourself there, and reload.
    #[command(after_help = "Examples:\n  selvedge config apply new.toml --dry-run\n  \
        selvedge config apply new.toml --if-revision 3")]
    Apply {
        /// The new configuration; - for standard input
        file: PathBuf,
        #[command(flatten)]
        give: order::Give,
    },
    /// Have the daemon take its configuration file as it is now, as SIGHUP does, and say what came of it
    #[command(after_help = "Examples:\n  selvedge config reload --dry-run    # what would change\n  \
        selvedge config reload")]
    Reload(order::Give),
}

#[derive(Debug, Args)]
struct PinArg {
    /// Directory of the pins (dataplane.pin_dir)
    #[arg(long, value_name = "DIR", default_value = "/sys/fs/bpf/selvedge")]
    pin_dir: PathBuf,
}

#[derive(Debug, Subcommand)]
enum DataplaneCommand {
    /// Show where the program is attached, and how
    #[command(after_help = "Examples:\n  selvedge dataplane show\n  \
        selvedge dataplane show --json | jq -r '.interfaces[].mode'")]
    Show {
        #[command(flatten)]
        pins: PinArg,
        /// Print as JSON
        #[arg(long)]
        json: bool,
    },
    /// Who asks most, and for what, of the queries that were noted (dataplane.sample)
    #[command(after_help = "Examples:\n  selvedge dataplane top\n  \
        selvedge dataplane top --most 3 --json | jq -r '.clients[].what'")]
    Top {
        /// Most lines of each kind
        #[arg(long, value_name = "N", default_value_t = 10)]
        most: usize,
        #[command(flatten)]
        pins: PinArg,
        /// Print as JSON
        #[arg(long)]
        json: bool,
    },
    /// Show or change what the program says of what it meets
    ///
    /// The daemon that loaded it has it in its log, a hundred messages in a second at most. It stays until it is changed
    /// again or the tables are made anew.
    #[command(after_help = "Examples:\n  selvedge dataplane log\n  \
        selvedge dataplane log --level debug; journalctl -fu selvedged")]
    Log {
        /// off; error: broken tables; warn: no room for an answer, too; debug: each dropped frame, too
        #[arg(long, value_name = "LEVEL", value_parser = ["off", "error", "warn", "debug"])]
        level: Option<String>,
        #[command(flatten)]
        pins: PinArg,
        /// Print as JSON
        #[arg(long)]
        json: bool,
    },
    /// Compare tables, links and pins in the kernel with what they shall be
    ///
    /// Where the daemon runs it is the one that looks, and it puts right what it can. Else nothing is changed. Exit code 0:
    /// nothing differs; 1: what is printed does; 2: wrong configuration; 3: it could not be found out.
    #[command(after_help = "Examples:\n  selvedge dataplane verify\n  \
        selvedge dataplane verify --json | jq -r '.drifts[]'")]
    Verify {
        /// The daemon's configuration
        #[arg(long, value_name = "FILE", default_value = "/etc/selvedge/selvedge.toml")]
        config: PathBuf,
        /// Print as JSON
        #[arg(long)]
        json: bool,
    },
    /// Put the program on, with the tables that are in the kernel or, where none are, the last published ones
    ///
    /// Needs neither the daemon nor its API. A daemon that runs takes the attachment over. A program of others is never
    /// replaced.
    #[command(after_help = "Examples:\n  selvedge dataplane attach eth0\n  \
        selvedge dataplane attach eth0 --mode generic")]
    Attach {
        /// The interface
        interface: String,
        /// In the driver, in the network stack, or where it can be
        #[arg(long, default_value = "auto", value_parser = ["auto", "native", "generic"])]
        mode: String,
        /// The daemon's configuration; read only where there are no tables in the kernel
        #[arg(long, value_name = "FILE", default_value = "/etc/selvedge/selvedge.toml")]
        config: PathBuf,
        #[command(flatten)]
        pins: PinArg,
    },
    /// Take the program off; queries then reach the daemon or whoever listens
    ///
    /// A daemon that runs leaves it off, until `attach` or its next start.
    #[command(after_help = "Examples:\n  selvedge dataplane detach eth0\n  \
        selvedge dataplane detach --tables    # nothing of ours is left in the kernel")]
    Detach {
        /// This interface only; all where none is named
        interface: Option<String>,
        /// Forget tables and counters too
        #[arg(long)]
        tables: bool,
        #[command(flatten)]
        pins: PinArg,
    },
}

#[derive(Debug, Subcommand)]
enum BenchCommand {
    /// Nanoseconds per packet of the program in the kernel, by kind of frame and size of table
    #[command(after_help = "Example:\n  selvedge bench dataplane --json | jq '.cases[] | {name, ns, ratio_to_swap}'")]
    Dataplane {
        /// Print as JSON
        #[arg(long)]
        json: bool,
    },
    /// How long an instance takes to answer, and to be gone
    #[command(after_help = "Examples:\n  selvedge bench lifecycle --technology spt --content 1,5,10,20 --runs 30\n  \
        selvedge bench lifecycle --technology docker --image 'nginx-{content}mb:1' --as nginx --json")]
    Lifecycle {
        #[command(flatten)]
        of: bench::TechnologyArgs,
        #[command(flatten)]
        lifecycle: bench::LifecycleArgs,
    },
    /// Many instances at once: how fast they come, and what each uses
    #[command(after_help = "Example:\n  selvedge bench density --technology spt --count 500 --json")]
    Density {
        #[command(flatten)]
        of: bench::TechnologyArgs,
        /// Instances; a bridge has 1023 ports
        #[arg(long, value_name = "N", default_value_t = 100, value_parser = clap::value_parser!(u32).range(1..=1000))]
        count: u32,
    },
    /// Cold starts by a query: from the question for a service at zero to HTTP 200
    #[command(after_help = "Examples:\n  selvedge bench summon --technology spt --runs 200 --json\n  \
        selvedge bench summon --technology spt --runs 20 --askers 100")]
    Summon {
        #[command(flatten)]
        of: bench::TechnologyArgs,
        /// Cold starts
        #[arg(long, default_value_t = 50, value_parser = clap::value_parser!(u32).range(1..=10_000))]
        runs: u32,
        /// Clients that ask at the same time for each
        #[arg(long, value_name = "N", default_value_t = 1, value_parser = clap::value_parser!(u32).range(1..=500))]
        askers: u32,
    },
}

/// Runs the command.
#[must_use]
pub fn run(cli: Cli) -> ExitCode {
    let done = match cli.command {
        Command::Status(args) => on_runtime(status::run(&args.socket.socket, args.json)),
        Command::Top(args) => on_runtime(top::run(&args.socket.socket)),
        Command::Service { command } => return coded(Box::pin(service::run(command))),
        Command::Instance { command } => return coded(Box::pin(instance::run(command))),
        Command::Store { command } => return coded(Box::pin(store::run(command))),
        Command::Openapi => serde_json::to_string_pretty(crate::api::document())
            .map(|text| println!("{text}"))
            .map_err(|e| e.to_string()),
        Command::Config { command: ConfigCommand::Show(look) } => on_runtime(configuration::show(look)),
        Command::Config { command: ConfigCommand::Apply { file, give } } => {
            on_runtime(configuration::apply(file, give))
        }
        Command::Config { command: ConfigCommand::Reload(give) } => on_runtime(configuration::reload(give)),
        Command::Config { command: ConfigCommand::Check { file } } => {
            let (code, text) = crate::config::check_command(&file);
            let mut out: Box<dyn Write> =
                if code == 0 { Box::new(std::io::stdout()) } else { Box::new(std::io::stderr()) };
            // A closed pipe on the reader's side is the reader's choice.
            let _ = writeln!(out, "{}", text.trim_end());
            return ExitCode::from(code);
        }
        Command::Dataplane { command: DataplaneCommand::Show { pins, json } } => dataplane::show(&pins.pin_dir, json),
        Command::Dataplane { command: DataplaneCommand::Top { most, pins, json } } => {
            dataplane::top(&pins.pin_dir, most, json)
        }
        Command::Dataplane { command: DataplaneCommand::Log { level, pins, json } } => {
            dataplane::log(&pins.pin_dir, level.as_deref(), json)
        }
        Command::Dataplane { command: DataplaneCommand::Detach { interface, tables, pins } } => {
            dataplane::detach(&pins.pin_dir, interface.as_deref(), tables)
        }
        Command::Dataplane { command: DataplaneCommand::Verify { config, json } } => {
            return coded(Box::pin(dataplane::verify(config, json)));
        }
        Command::Dataplane { command: DataplaneCommand::Attach { interface, mode, config, pins } } => {
            dataplane::attach(&pins.pin_dir, &interface, &mode, &config)
        }
        Command::Table { command } => return coded(table::run(command)),
        Command::Net { command } => return coded(Box::pin(net::run(command))),
        Command::Explain(args) => return coded(Box::pin(explain::run(args))),
        Command::Capture(args) => return coded(Box::pin(capture::run(args))),
        Command::Clear { config, yes } => on_runtime(Box::pin(clear(config, yes))),
        Command::Image { command } => return coded(Box::pin(image::run(command))),
        Command::Catalog(args) => return catalogue::show(&args),
        Command::Select(args) => return catalogue::choose(args),
        Command::Replay(args) => return replay::run(&args),
        Command::Tune(args) => return tune::run(&args),
        Command::Bench { command: BenchCommand::Dataplane { json } } => bench::dataplane(json),
        Command::Bench { command: BenchCommand::Lifecycle { of, lifecycle } } => bench::lifecycle(of, &lifecycle),
        Command::Bench { command: BenchCommand::Density { of, count } } => bench::density(of, count),
        Command::Bench { command: BenchCommand::Summon { of, runs, askers } } => {
            bench::summon(of, SummonOptions { runs, askers })
        }
        Command::Load(args) => on_runtime(Box::pin(offer_load(*args))),
        Command::Completions { shell } => {
            clap_complete::generate(shell, &mut Cli::command(), "selvedge", &mut std::io::stdout());
            Ok(())
        }
        Command::Man { directory } => man(&directory),
    };
    finish(done)
}

/// What a command gives: an error is already a whole sentence.
type Done = Result<(), String>;

fn on_runtime<T>(work: impl Future<Output = Result<T, String>>) -> Result<T, String> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    runtime.map_err(|e| format!("the runtime could not be started: {e}"))?.block_on(work)
}

/// For commands that are done or not.
fn finish(done: Done) -> ExitCode {
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("selvedge: {error}");
            ExitCode::FAILURE
        }
    }
}

/// For commands whose exit code says more than whether they went well.
fn coded(work: impl Future<Output = ExitCode>) -> ExitCode {
    on_runtime(async { Ok(work.await) }).unwrap_or_else(|error| {
        eprintln!("selvedge: {error}");
        ExitCode::from(2)
    })
}

async fn clear(config: PathBuf, yes: bool) -> Done {
    let cleared = crate::daemon::clear(&config, yes).await.map_err(|e| e.to_string())?;
    for thing in &cleared.found {
        println!("{thing}");
    }
    if cleared.found.is_empty() {
        println!("nothing of ours is here");
    } else if !yes {
        println!("\nnothing was changed; --yes removes these");
    }
    if cleared.failed.is_empty() { Ok(()) } else { Err(cleared.failed.join("\nselvedge: ")) }
}

async fn offer_load(args: LoadArgs) -> Done {
    let interrupted = async {
        // Where the signal cannot be caught it ends the process, as it would anyway.
        let _ = tokio::signal::ctrl_c().await;
    };
    let report = crate::load::command(&args, interrupted).await.map_err(|e| e.to_string())?;
    if report.all_ok() {
        Ok(())
    } else {
        Err(format!("{} of {} requests failed", report.total.failed, report.total.offered))
    }
}

fn man(directory: &std::path::Path) -> Done {
    let failed = |e: std::io::Error| format!("{}: {e}", directory.display());
    std::fs::create_dir_all(directory).map_err(failed)?;
    clap_mangen::generate_to(Cli::command(), directory).map_err(failed)?;
    // The daemon's page belongs to section 8.
    let page = clap_mangen::Man::new(DaemonArgs::command()).section("8");
    let mut file = std::fs::File::create(directory.join("selvedged.8")).map_err(failed)?;
    page.render(&mut file).map_err(failed)
}
