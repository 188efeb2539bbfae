//! The console: a ring to `xenconsoled` (`struct xencons_interface` of `public/io/console.h`). What does not fit is lost,
//! for a guest must not stand still because nobody reads.

use core::fmt;
use core::sync::atomic::{AtomicU32, AtomicU64, Ordering};

use crate::hypercall::{self, Parameter, Refused};
use crate::page::{Shared, barrier};

/// Offsets: the bytes that go out, how many have been read and written of them since the start.
const OUT: usize = 1024;
const CONSUMED: usize = 3080;
const PRODUCED: usize = 3084;
const SIZE: u32 = 2048;

static FRAME: AtomicU64 = AtomicU64::new(0);
static PORT: AtomicU32 = AtomicU32::new(0);

/// Finds it. Nothing is printed before.
pub fn start() -> Result<(), Refused> {
    let port = hypercall::parameter(Parameter::ConsoleEvents)?;
    PORT.store(port as u32, Ordering::Relaxed);
    FRAME.store(hypercall::parameter(Parameter::ConsoleFrame)?, Ordering::Relaxed);
    Ok(())
}

/// Where text is written; all of them are the same.
pub struct Console;

impl fmt::Write for Console {
    fn write_str(&mut self, text: &str) -> fmt::Result {
        // 0: there is none.
        let Some(ring) = Shared::at_frame(FRAME.load(Ordering::Relaxed)) else { return Ok(()) };
        let mut produced: u32 = ring.read(PRODUCED);
        let room = SIZE.saturating_sub(produced.wrapping_sub(ring.read(CONSUMED)));
        for byte in text.bytes().take(room as usize) {
            ring.write(OUT + (produced % SIZE) as usize, byte);
            produced = produced.wrapping_add(1);
        }
        barrier();
        ring.write(PRODUCED, produced);
        barrier();
        hypercall::notify(PORT.load(Ordering::Relaxed));
        Ok(())
    }
}
