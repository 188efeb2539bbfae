//! The configuration file → checked [`model`](crate::model) values, and the difference of two.
//!
//! Every fault is told at once, one line each: `FILE:LINE: KEY: what is wrong; what to do`. Reading the
//! file and the zones' master files is the only effect here.

mod api;
mod cross;
mod diff;
mod errors;
mod guard;
mod images;
mod names;
mod networks;
mod prepared;
mod rdata;
mod reader;
mod records;
mod scaling;
mod sections;
mod services;
mod shared;
mod summon;
mod technologies;
mod types;
mod values;
mod zone;
mod zone_file;

#[cfg(test)]
mod tests;

use std::fs::File;
use std::io::Read;
use std::path::{Path, PathBuf};

use toml::de::DeTable;

pub use api::Api;
pub use diff::{ConfigDiff, ServiceChange, diff};
pub use errors::{ConfigError, ConfigErrors};
pub use images::Images;
pub use names::lies_in;
pub use scaling::{Mode, Scaling};
pub use shared::MOST_INSTANCES;
pub use types::{
    Accelerator, AttachMode, Caps, Config, Control, Dataplane, Dns, Docker, LogLevel, Monitor, Networks, Pool,
    Technologies, Transit, Unikernels, Xen,
};
pub use values::{parse_duration, show_duration};

use crate::model::{Limits, NodeName};
use errors::Complaint;
use reader::{Reader, Section};

/// More than any hand-written configuration has; keeps a wrong path from filling the memory.
const LARGEST_FILE: u64 = 4 << 20;
/// Where the store is unless the file says so.
const STATE_DIR: &str = "/var/lib/selvedge";
const DEFAULT_NODE: &str = "node";

/// Reads and checks a configuration file.
///
/// # Errors
/// [`ConfigErrors`] with every fault that was found.
pub fn load(path: &Path) -> Result<Config, ConfigErrors> {
    parse(&read(path)?, &path.display().to_string())
}

/// Reads the text of a configuration file.
///
/// # Errors
/// [`ConfigErrors`] where it cannot be read or is no text.
pub fn read(path: &Path) -> Result<String, ConfigErrors> {
    let name = path.display().to_string();
    let mut bytes = Vec::new();
    let read = File::open(path).and_then(|file| file.take(LARGEST_FILE + 1).read_to_end(&mut bytes));
    if let Err(error) = read {
        let fix = "check that the path is right and that you may read it";
        return Err(ConfigErrors::of_file(&name, 1, format!("cannot be read: {error}"), fix));
    }
    if bytes.len() as u64 > LARGEST_FILE {
        let what = format!("is larger than {} MiB", LARGEST_FILE >> 20);
        return Err(ConfigErrors::of_file(&name, 1, what, "check that this is the configuration"));
    }
    String::from_utf8(bytes).map_err(|error| {
        let (bytes, error) = (error.as_bytes(), error.utf8_error());
        let line = 1 + bytes[..error.valid_up_to()].iter().filter(|b| **b == b'\n').count();
        ConfigErrors::of_file(&name, line, "is not UTF-8 from here on".to_owned(), "save it as UTF-8")
    })
}

/// `control.state_dir` of a text that may be wrong elsewhere; its default where it is not there to be read.
#[must_use]
pub fn state_dir(text: &str) -> PathBuf {
    let (table, _) = DeTable::parse_recoverable(text);
    let control = table.get_ref().get("control").and_then(|value| value.get_ref().as_table());
    let given = control.and_then(|control| control.get("state_dir")?.get_ref().as_str()).map(PathBuf::from);
    given.filter(|dir| dir.is_absolute()).unwrap_or_else(|| PathBuf::from(STATE_DIR))
}

/// Checks the text of a configuration; `file_name` is how complaints name it.
///
/// # Errors
/// [`ConfigErrors`] with every fault that was found. Where the text is no TOML, the first place that
/// makes it so is the only one told.
pub fn parse(text: &str, file_name: &str) -> Result<Config, ConfigErrors> {
    let reader = Reader::new(file_name, text);
    let (table, syntax) = DeTable::parse_recoverable(text);
    // The parser goes on after a fault, but what it finds then is mostly the same fault again.
    let place = |error: &toml::de::Error| error.span().map_or(text.len(), |span| span.start);
    if let Some(error) = syntax.iter().min_by_key(|error| place(error)) {
        let line = reader.line(&(place(error)..text.len()));
        let fix = "correct this line: KEY = VALUE, with texts in \"quotes\", lists in [ ], each key once in a section";
        reader.complain(line, "(syntax)", Complaint::new(error.message(), fix));
        return Err(ConfigErrors::new(reader.into_errors()).unwrap_or_else(|| no_errors(file_name)));
    }
    let Ok(default_node) = NodeName::new(DEFAULT_NODE) else { return Err(no_errors(file_name)) };
    let config = check(&Section::root(&reader, table.get_ref()), &default_node);
    match ConfigErrors::new(reader.into_errors()) {
        Some(errors) => Err(errors),
        None => Ok(config),
    }
}

/// Cannot come up; an error rather than a panic, should a later change prove this wrong.
fn no_errors(file_name: &str) -> ConfigErrors {
    ConfigErrors::of_file(file_name, 1, "cannot be checked".to_owned(), "report this as a defect of selvedge")
}

fn check(root: &Section<'_, '_>, default_node: &NodeName) -> Config {
    let reader = root.reader;
    root.allow(&[
        "node",
        "dataplane",
        "dns",
        "zone",
        "control",
        "api",
        "limits",
        "scaling",
        "summon",
        "images",
        "network",
        "technology",
        "service",
    ]);

    let limit = sections::limits(&root.section("limits"));
    let (listen, dns) = sections::dns(&root.section("dns"));
    let technologies = technologies::technologies(&root.section("technology"));
    let mut zone_sections = root.sections("zone");
    let addresses: Vec<_> = listen.iter().map(|f| f.value).collect();
    let mut zones: Vec<_> = zone_sections.iter_mut().filter_map(|s| sections::zone(s, &addresses)).collect();
    let all_zones = zones.len() == zone_sections.len();
    let scaling = scaling::written(&root.section("scaling"));
    let services = root.sections("service").into_iter().filter_map(|mut s| services::service(&mut s, &limit, &scaling));
    let mut services: Vec<_> = services.collect();
    cross::zones(reader, &zones);
    cross::services(reader, &services, &zones, all_zones);
    records::check(reader, &zones, &services);
    zone_file::check(reader, &mut zones, &services);
    cross::limits(reader, &services, &limit);
    cross::pools(reader, &technologies.pools, &listen, &limit, &services);
    cross::elsewhere(reader, &technologies.pools, &services);

    zones.sort_by(|a, b| a.zone.value.apex.cmp(&b.zone.value.apex));
    services.sort_by(|a, b| a.spec.name.cmp(&b.spec.name));
    let pools: Vec<_> = technologies.pools.iter().filter(|pool| pool.is_meant(&services)).collect();
    let control = sections::control(&root.section("control"));
    Config {
        node: sections::node(&root.section("node"), default_node),
        dataplane: sections::dataplane(&root.section("dataplane")),
        listen: addresses,
        dns,
        zones: zones.into_iter().map(zone::ZoneSection::finish).collect(),
        images: images::images(&root.section("images"), &control.state_dir),
        control,
        api: api::api(&root.section("api")),
        limits: Limits { instances: limit.value },
        caps: sections::caps(&root.section("limits")),
        summon: summon::limits(&root.section("summon")),
        networks: networks::networks(&root.section("network"), &pools),
        technologies: technologies.technologies,
        scaling: services.iter().map(|s| (s.spec.name.clone(), s.scaling.clone())).collect(),
        services: services.into_iter().map(|s| s.spec).collect(),
    }
}

/// What `selvedge config check FILE` prints and exits with: 0 for a sound file, 2 otherwise.
#[must_use]
pub fn check_command(path: &Path) -> (u8, String) {
    match load(path) {
        Ok(config) => {
            let (zones, services) = (config.zones.len(), config.services.len());
            let mut text = format!("{}: sound; zones: {zones}, services: {services}\n", path.display());
            for remark in config.remarks() {
                text.push_str(&format!("note: {remark}\n"));
            }
            (0, text)
        }
        Err(errors) => (2, format!("{errors}\n")),
    }
}
