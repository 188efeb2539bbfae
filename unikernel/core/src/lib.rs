//! The reference unikernel without its machine: settings from the command line, an HTTP/1.1 server, and the loop
//! that joins it with a network device. A port implements [`Platform`] and calls [`serve`].

#![cfg_attr(not(test), no_std)]

extern crate alloc;

mod connection;
mod content;
mod http;
mod response;
mod server;
mod settings;

pub use server::{Platform, serve};
pub use settings::{Settings, SettingsError};
