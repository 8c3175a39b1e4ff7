//! Cuts a failing script down to the steps that matter.

use super::run;
use super::script::{Script, Step};

/// A shorter script that still fails, and how.
pub(super) fn shrink(script: &Script, error: String) -> (Script, String) {
    let (mut best, mut said) = (script.clone(), error);
    let mut chunk = best.steps.len() / 2;
    while chunk > 0 {
        let mut at = 0;
        let mut cut = false;
        while at < best.steps.len() {
            let mut shorter = best.clone();
            shorter.steps.drain(at..(at + chunk).min(best.steps.len()));
            match run(&shorter) {
                Err(error) => (best, said, cut) = (shorter, error, true),
                Ok(_) => at += chunk,
            }
        }
        if !(cut && chunk == 1) {
            chunk /= 2;
        }
    }
    fewer_ops(&mut best, &mut said);
    (best, said)
}

fn fewer_ops(best: &mut Script, said: &mut String) {
    for n in 0..best.steps.len() {
        let mut at = 0;
        loop {
            let mut shorter = best.clone();
            let Step::Commit { ops, .. } = &mut shorter.steps[n] else { break };
            if at >= ops.len() || ops.len() == 1 {
                break;
            }
            ops.remove(at);
            match run(&shorter) {
                Err(error) => (*best, *said) = (shorter, error),
                Ok(_) => at += 1,
            }
        }
    }
}
