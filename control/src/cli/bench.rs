//! `selvedge bench`: figures of this machine.

use super::Done;
use crate::datapath::bench;

pub(super) fn dataplane(json: bool) -> Done {
    let figures = bench::run().map_err(|e| e.to_string())?;
    if json {
        println!("{}", serde_json::to_string_pretty(&figures).map_err(|e| format!("bench: {e}"))?);
        return Ok(());
    }
    let base = &figures.baselines;
    println!("kernel {}; ns per packet, least of several rounds, one core", figures.kernel);
    println!("{:<14}{:>8.1}", "bare pass", base.pass_ns);
    println!("{:<14}{:>8.1}   parse, exchange addresses, send back", "swap", base.swap_tx_ns);
    println!("\n{:<14}{:>8}{:>8}{:>8}  {:<14}", "case", "ns", "x swap", "x pass", "verdict");
    for case in &figures.cases {
        let (name, ns, swap, pass) = (&case.name, case.ns, case.ratio_to_swap, case.ratio_to_pass);
        println!("{name:<14}{ns:>8.1}{swap:>8.2}{pass:>8.2}  {:<14}{}", case.verdict, case.about);
    }
    println!("\n{:<14}{:>8}{:>8}{:>10}", "names", "uniform", "Zipf", "services");
    for size in figures.scaling.iter().chain(&figures.scaling_services) {
        println!("{:<14}{:>8.1}{:>8.1}{:>10}", size.names, size.ns, size.zipf_ns, size.services);
    }
    println!("\n{:<22}{:>14}{:>14}{:>14}", "program", "instructions", "machine bytes", "verified");
    for program in &figures.programs {
        let (size, bytes, verified) = (program.instructions, program.jited_bytes, program.verified);
        println!("{:<22}{size:>14}{bytes:>14}{verified:>14}", program.name);
    }
    Ok(())
}
