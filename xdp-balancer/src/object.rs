//! The eBPF object, built by `build.rs` and embedded.

use aya::EbpfLoader;
use aya::include_bytes_aligned;
use aya::programs::{Program, ProgramError, SchedClassifier, Xdp};
use aya::{Ebpf, EbpfError};
use xdp_balancer_common::object;

use crate::error::Error;

/// The object as it was linked.
pub(crate) static OBJECT: &[u8] = include_bytes_aligned!(concat!(env!("OUT_DIR"), "/xdp-balancer"));

/// Creates or adopts maps as the loader was told, and prepares the programs.
pub(crate) fn load(loader: &mut EbpfLoader<'_>) -> Result<Ebpf, Error> {
    load_other(loader, OBJECT)
}

/// The same for another object.
pub(crate) fn load_other(loader: &mut EbpfLoader<'_>, object: &[u8]) -> Result<Ebpf, Error> {
    loader.load(object).map_err(|error: EbpfError| Error::system("create", "the BPF maps")(error))
}

/// Loads an XDP program and takes it out of the object.
pub(crate) fn xdp<'a>(object: &'a mut Ebpf, name: &'static str) -> Result<&'a mut Xdp, Error> {
    let program = object.program_mut(name).ok_or(Error::Missing { name })?;
    let program: &mut Xdp = program.try_into().map_err(|_| Error::Missing { name })?;
    program.load().map_err(|error| refused(name, error))?;
    Ok(program)
}

/// Loads a classifier and takes it out of the object.
pub(crate) fn classifier<'a>(object: &'a mut Ebpf, name: &'static str) -> Result<&'a mut SchedClassifier, Error> {
    let program = classifier_of(object, name)?;
    program.load().map_err(|error| refused(name, error))?;
    Ok(program)
}

/// A classifier of the object.
pub(crate) fn classifier_of<'a>(object: &'a mut Ebpf, name: &'static str) -> Result<&'a mut SchedClassifier, Error> {
    let program = object.program_mut(name).ok_or(Error::Missing { name })?;
    program.try_into().map_err(|_| Error::Missing { name })
}

/// The XDP program that answers, already loaded.
pub(crate) fn loaded_xdp(object: &Ebpf) -> Result<&Xdp, Error> {
    loaded(object, object::XDP)
}

/// An XDP program, already loaded.
pub(crate) fn loaded<'a>(object: &'a Ebpf, name: &'static str) -> Result<&'a Xdp, Error> {
    match object.program(name) {
        Some(Program::Xdp(program)) => Ok(program),
        _ => Err(Error::Missing { name }),
    }
}

/// Missing rights are no fault of the program.
fn refused(program: &'static str, error: ProgramError) -> Error {
    match error {
        ProgramError::LoadError { io_error, .. } if io_error.raw_os_error() == Some(libc::EPERM) => {
            Error::system("load the program", program)(io_error)
        }
        ProgramError::LoadError { io_error, verifier_log } => {
            Error::Rejected { program, why: last_words(&verifier_log.to_string()), source: io_error }
        }
        error => Error::system("load the program", program)(error),
    }
}

/// What the verifier says last, but for its statistics; before that is its way through the program.
fn last_words(log: &str) -> String {
    const STATISTICS: [&str; 3] = ["processed ", "stack depth ", "verification time "];
    let said = |line: &&str| !line.trim().is_empty() && !STATISTICS.iter().any(|word| line.starts_with(word));
    log.lines().rev().find(said).unwrap_or("it said nothing").trim().to_owned()
}

#[cfg(test)]
#[path = "object_tests.rs"]
mod tests;
