//! virtio-blk as a whole: two guests' registers and rings, the backend that dies, the disk that fails, against a model. The
//! program is `tests/blk-model`; eight bytes are a step. In one of four inputs bits flip.
#![no_main]

use libfuzzer_sys::fuzz_target;
use partita_blk_model::{Step, run};

fuzz_target!(|data: &[u8]| {
    let (steps, _) = data.as_chunks::<8>();
    let steps: &[Step] = steps;
    let flips = steps.first().is_some_and(|first| first[1] & 3 == 3);
    run(steps, flips);
});
