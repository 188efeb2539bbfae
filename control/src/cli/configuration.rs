//! `selvedge config`: the daemon's configuration, looked at and changed through the daemon.

use std::io::Read as _;
use std::path::{Path, PathBuf};

use super::Done;
use super::order::{Give, Look, plain};
use super::paint::utc;
use crate::api::{ConfigurationOrder, ConfigurationResource, Origin, client};

pub(super) async fn show(look: Look) -> Done {
    let now = client::configuration(look.socket()).await.map_err(plain)?;
    look.print(&now, || show_text(&now))
}

pub(super) async fn apply(file: PathBuf, give: Give) -> Done {
    let mut text = String::new();
    let read = if file == Path::new("-") {
        std::io::stdin().read_to_string(&mut text).map(drop)
    } else {
        std::fs::read_to_string(&file).map(|read| text = read)
    };
    read.map_err(|e| format!("{}: {e}", file.display()))?;
    let outcome = client::configure(give.socket(), Some(&ConfigurationOrder { text }), give.terms()).await;
    give.tell(&outcome.map_err(plain)?)
}

pub(super) async fn reload(give: Give) -> Done {
    let outcome = client::configure(give.socket(), None, give.terms()).await.map_err(plain)?;
    give.tell(&outcome)
}

fn show_text(now: &ConfigurationResource) -> String {
    let origin = match now.origin {
        Origin::File => "from the file",
        Origin::LastAccepted => "the one accepted last, for the file was wrong at the start",
    };
    let mut text = format!("# {}, revision {}, taken {}, {origin}\n", now.path, now.revision, utc(now.taken_at));
    for key in &now.restart {
        text.push_str(&format!("# {key} takes effect at the next restart\n"));
    }
    if now.rejected > 0 {
        text.push_str(&format!("# {} were refused since the daemon started\n", now.rejected));
    }
    for problem in &now.problems {
        text.push_str(&format!("# refused: {problem}\n"));
    }
    text.push_str(&now.text);
    text
}
