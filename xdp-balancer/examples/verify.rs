//! Shows what this kernel's verifier says of the object.
use xdp_balancer::{Dataplane, Options};
fn main() {
    let options = Options { pin_dir: std::env::args().nth(1).unwrap_or("/sys/fs/bpf/verify".into()).into(), ..Options::default() };
    match Dataplane::open(&options) {
        Ok(_d) => {
            for p in aya::programs::loaded_programs().flatten() {
                println!("{} verified {:?} xlated {:?} us", p.name_as_str().unwrap_or("?"), p.verified_instruction_count(), p.size_translated());
            }
        }
        Err(e) => { let t = format!("{:?}", std::error::Error::source(&e).map(|s| s.to_string())); let t = t.replace("\\n", "\n"); let n = t.len(); println!("FAILED {e}\n{}", &t[n.saturating_sub(6000)..]); }
    }
    let _ = xdp_balancer::remove_all(&options.pin_dir);
}
