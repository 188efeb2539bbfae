//! An image with Debian's Python and Flask, and a page like the nginx image's: the paper's second container.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use super::docker::Engine;
use super::error::{LabError, Result};
use super::image::{Archive, content, import, libraries};
use super::process::run;

/// The distribution's interpreter, whatever else is in the path.
const PYTHON: &str = "/usr/bin/python3";

/// What is served.
const SERVER: &str = "\
from flask import Flask, send_file

app = Flask(__name__)

@app.get('/healthz')
def healthz():
    return 'ok\\n', {'Content-Type': 'text/plain'}

@app.get('/content')
def content():
    return send_file('/srv/content', mimetype='application/octet-stream')

if __name__ == '__main__':
    app.run(host='::', port=80, threaded=True)
";

/// Asks the server a question where it lies, and prints what that has loaded: the interpreter, the directories of the
/// standard library, and the modules and packages beside them.
const PARTS: &str = "\
import os, runpy, sys, sysconfig
app = runpy.run_path(sys.argv[1])['app']
assert app.test_client().get('/healthz').data == b'ok\\n'
print(os.path.realpath(sys.executable))
library = sysconfig.get_path('stdlib')
print(library)
for name, module in sys.modules.items():
    file = getattr(module, '__file__', None)
    if file and '.' not in name and not file.startswith((library + '/', sys.argv[1])):
        print(os.path.dirname(file) if file.endswith('/__init__.py') else file)
";

/// Makes the image `tag` (`name:tag`) with Flask and `content_bytes` bytes at `/content` and `ok` at `/healthz`. Nothing
/// is done where the engine has it already with the same things in it.
///
/// # Errors
/// [`LabError`]: Flask is not installed here, or the engine refused.
pub fn build_flask_image(engine: &Engine, tag: &str, content_bytes: usize) -> Result<()> {
    let dir = tempfile::tempdir().map_err(LabError::system("make", "a directory"))?;
    let server = dir.path().join("server.py");
    fs::write(&server, SERVER).map_err(LabError::system("write", server.display()))?;
    // -I: nothing of the user's; -B: nothing is written beside the distribution's files.
    let parts = run(Command::new(PYTHON).args(["-I", "-B", "-c", PARTS]).arg(&server))?;

    let mut archive = Archive::with_users();
    archive.file("srv/content", 0o644, &content(content_bytes));
    archive.file("srv/server.py", 0o644, SERVER.as_bytes());
    let mut files = Vec::new();
    for part in parts.lines() {
        collect(Path::new(part), &mut files)?;
    }
    let mut needed = std::collections::BTreeSet::new();
    for file in &files {
        let binary =
            file.extension().is_some_and(|extension| extension == "so") || file.parent() == Path::new(PYTHON).parent();
        if binary {
            needed.extend(libraries(file)?);
        }
    }
    files.extend(needed);
    for file in &files {
        archive.copy(file)?;
    }
    let interpreter = parts.lines().next().unwrap_or(PYTHON);
    import(engine, tag, archive.finish(), &[interpreter, "-I", "-B", "/srv/server.py"])
}

/// A file, or all files below a directory but tests, in the same order always.
fn collect(path: &Path, files: &mut Vec<PathBuf>) -> Result<()> {
    let failed = || LabError::system("read", path.display());
    if !path.is_dir() {
        files.push(path.to_owned());
        return Ok(());
    }
    let entries = fs::read_dir(path).map_err(failed())?.collect::<std::io::Result<Vec<_>>>().map_err(failed())?;
    let mut paths: Vec<PathBuf> = entries.into_iter().map(|entry| entry.path()).collect();
    paths.sort();
    let kept = |path: &&PathBuf| {
        let name = path.file_name().unwrap_or_default().to_string_lossy();
        !(matches!(&*name, "test" | "tests" | "dist-packages") || name.starts_with("config-")) && path.exists()
    };
    for below in paths.iter().filter(kept) {
        collect(below, files)?;
    }
    Ok(())
}
