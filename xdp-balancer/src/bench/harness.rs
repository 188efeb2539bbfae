//! The harness object and its timing.

use std::os::fd::AsFd as _;

use aya::maps::{Array, MapData, MapError, ProgramArray};
use aya::programs::{Program, Xdp};
use aya::{Ebpf, EbpfLoader, include_bytes_aligned};
use xdp_balancer_common::bench::{self, FRAME_BYTES, Frame, State};
use xdp_balancer_common::object;

use crate::dataplane::{Dataplane, RunResult, test_run};
use crate::error::Error;
use crate::object as elf;
use crate::sys;

static OBJECT: &[u8] = include_bytes_aligned!(concat!(env!("OUT_DIR"), "/xdp-harness"));

/// The harness, loaded.
pub(super) struct Harness {
    object: Ebpf,
    name: &'static str,
    frame: Array<MapData, Frame>,
    state: Array<MapData, State>,
    order: Array<MapData, u32>,
    target: ProgramArray<MapData>,
}

/// Least times of one frame behind the harness.
#[derive(Clone, Copy)]
pub(super) struct Timed {
    /// With the program under test.
    pub program: f64,
    /// With the passing one.
    pub pass: f64,
}

impl Default for Timed {
    fn default() -> Self {
        Self { program: f64::MAX, pass: f64::MAX }
    }
}

impl Timed {
    /// One round; the frame is set already.
    pub(super) fn add(
        &mut self,
        harness: &mut Harness,
        plane: &Dataplane,
        passing: &Dataplane,
        frame: &[u8],
        repeat: u32,
    ) -> Result<(), Error> {
        self.add_windows(harness, [plane, passing], frame, repeat, 1)
    }

    /// So many rounds of the program, then as many of the passing one: in between, the tables would leave the caches.
    pub(super) fn add_windows(
        &mut self,
        harness: &mut Harness,
        [plane, passing]: [&Dataplane; 2],
        frame: &[u8],
        repeat: u32,
        windows: u32,
    ) -> Result<(), Error> {
        harness.aim(plane, object::XDP)?;
        for _ in 0..windows {
            self.program = self.program.min(harness.time(frame, repeat)?);
        }
        harness.aim(passing, object::PASS)?;
        for _ in 0..windows {
            self.pass = self.pass.min(harness.time(frame, repeat)?);
        }
        Ok(())
    }
}

impl Harness {
    /// Loads the harness of the kind that goes with the program under test.
    pub(super) fn open(plane: &Dataplane) -> Result<Self, Error> {
        let mut harness = Self::load(bench::object::HARNESS)?;
        match harness.target.set(0, program(&plane.object, object::XDP)?.fd().map_err(failed)?, 0) {
            Ok(()) => Ok(harness),
            Err(MapError::SyscallError(error)) if error.io_error.raw_os_error() == Some(libc::EINVAL) => {
                Self::load(bench::object::HARNESS_FRAGS)
            }
            Err(error) => Err(Error::system("write", bench::object::TARGET)(error)),
        }
    }

    fn load(name: &'static str) -> Result<Self, Error> {
        let loaded = EbpfLoader::new().load(OBJECT);
        let mut object = loaded.map_err(Error::system("create", "the maps of the bench"))?;
        elf::xdp(&mut object, name)?;
        elf::xdp(&mut object, bench::object::SWAP)?;
        let mut take = |name: &'static str| object.take_map(name).ok_or(Error::Missing { name });
        let opened = "open";
        let frame = take(bench::object::FRAME)?.try_into().map_err(Error::system(opened, bench::object::FRAME))?;
        let state = take(bench::object::STATE)?.try_into().map_err(Error::system(opened, bench::object::STATE))?;
        let order = take(bench::object::ORDER)?.try_into().map_err(Error::system(opened, bench::object::ORDER))?;
        let target = take(bench::object::TARGET)?.try_into().map_err(Error::system(opened, bench::object::TARGET))?;
        Ok(Self { object, name, frame, state, order, target })
    }

    pub(super) fn object(&self) -> &Ebpf {
        &self.object
    }

    /// Which of the harnesses it is.
    pub(super) fn name(&self) -> &'static str {
        self.name
    }

    /// Sets what each run begins with; eight bytes at `letters_at` name one of `names`, as the
    /// order says.
    pub(super) fn set_frame(&mut self, bytes: &[u8], letters_at: u32, names: u32) -> Result<(), Error> {
        let mut frame = Frame { len: bytes.len() as u32, letters_at, names, _pad: 0, bytes: [0; FRAME_BYTES] };
        frame.bytes[..bytes.len()].copy_from_slice(bytes);
        self.frame.set(0, frame, 0).map_err(Error::system("write", bench::object::FRAME))
    }

    /// Sets the order of names.
    pub(super) fn set_order(&mut self, order: impl Iterator<Item = u32>) -> Result<(), Error> {
        for (index, number) in (0..bench::SEQUENCE).zip(order) {
            self.order.set(index, number, 0).map_err(Error::system("write", bench::object::ORDER))?;
        }
        Ok(())
    }

    /// Puts a program of the dataplane behind the harness.
    pub(super) fn aim(&mut self, plane: &Dataplane, name: &'static str) -> Result<(), Error> {
        self.aim_at(&plane.object, name)
    }

    /// The same of any object.
    pub(super) fn aim_at(&mut self, object: &Ebpf, name: &'static str) -> Result<(), Error> {
        let fd = program(object, name)?.fd().map_err(failed)?;
        self.target.set(0, fd, 0).map_err(Error::system("write", bench::object::TARGET))
    }

    /// Runs frames through the harness and what is behind it.
    pub(super) fn run(&mut self, frame: &[u8], repeat: u32) -> Result<RunResult, Error> {
        // Each call of the kernel has the frame elsewhere.
        let state = self.state.get(&0, 0).map_err(Error::system("read", bench::object::STATE))?;
        let state = State { start: 0, ..state };
        self.state.set(0, state, 0).map_err(Error::system("write", bench::object::STATE))?;
        test_run(program(&self.object, self.name)?, frame, repeat)
    }

    /// Nanoseconds per run, the harness's own included.
    pub(super) fn time(&mut self, frame: &[u8], repeat: u32) -> Result<f64, Error> {
        let before = sys::thread_time().map_err(Error::system("read", "the thread's clock"))?;
        self.run(frame, repeat)?;
        let after = sys::thread_time().map_err(Error::system("read", "the thread's clock"))?;
        Ok((after - before) as f64 / f64::from(repeat))
    }

    /// Nanoseconds per turn of the baseline that parses, exchanges and sends back.
    pub(super) fn swap(&self, frame: &[u8], repeat: u32) -> Result<f64, Error> {
        time(program(&self.object, bench::object::SWAP)?, frame, repeat)
    }
}

/// Nanoseconds per run of a program that leaves its frame fit for the next run. By the thread's clock:
/// the kernel's own figure is in whole nanoseconds.
pub(super) fn time(program: &Xdp, frame: &[u8], repeat: u32) -> Result<f64, Error> {
    let before = sys::thread_time().map_err(Error::system("read", "the thread's clock"))?;
    test_run(program, frame, repeat)?;
    let after = sys::thread_time().map_err(Error::system("read", "the thread's clock"))?;
    Ok((after - before) as f64 / f64::from(repeat))
}

/// A loaded XDP program.
pub(super) fn program<'a>(object: &'a Ebpf, name: &'static str) -> Result<&'a Xdp, Error> {
    match object.program(name) {
        Some(Program::Xdp(program)) => Ok(program),
        _ => Err(Error::Missing { name }),
    }
}

/// Instructions, bytes of machine code, verified instructions.
pub(super) fn size(object: &Ebpf, name: &'static str) -> Result<[u32; 3], Error> {
    let fd = program(object, name)?.fd().map_err(failed)?;
    sys::program_size(fd.as_fd()).map_err(Error::system("inspect the program", name))
}

fn failed(error: aya::programs::ProgramError) -> Error {
    Error::system("use the program", object::XDP)(error)
}
