//! `selvedge load`: clients that look the service's name up for each request and download over HTTP,
//! as the paper's workload generator does.
//!
//! An **open loop**: each window's requests leave at fixed moments, spread evenly, whether or not
//! earlier ones have ended, so slow servers do not lower what is offered. Every request is its own
//! lookup (one DNS query) and its own TCP connection. Measured, in the paper's terms:
//! - *lookup*: first query → usable answer, retries included;
//! - *response time*: start of the TCP connection → the response's head;
//! - *download time*: head → last byte of the body;
//! - *total delivery time*: response time + download time;
//! - *throughput*: body bytes / download time.

mod error;
mod fetch;
mod lookup;
mod options;
mod report;
mod request;
mod run;
#[cfg(test)]
mod tests;

pub use error::LoadError;
pub use fetch::FetchError;
pub use lookup::LookupError;
pub use options::{DnsServer, Family, LoadArgs, LoadOptions, OptionError, Pattern};
pub use report::{Failure, LoadReport, RequestRecord, Share, Stage, Summary, Tally, WindowRecord};
pub use request::RequestError;
pub use run::{LoadEvent, command, run};
