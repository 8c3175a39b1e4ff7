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

#[cfg(test)]
mod tests {
    use super::super::schema::Name;
    use super::super::script::Op;
    use super::*;
    use crate::mutant::{self, Mutant};

    #[test]
    fn a_failing_run_becomes_a_test_in_which_every_step_matters() {
        mutant::set(Some(Mutant::DeltaIgnoresDeletes));
        let fails = |seed| run(&Script::random(seed)).err().map(|error| (seed, error));
        let (seed, error) = (1..400).find_map(fails).expect("the bug is found");
        let (short, error) = shrink(&Script::random(seed), error);
        assert_eq!(run(&short).err(), Some(error));
        assert!(short.steps.len() <= 10, "{short}");
        for at in 0..short.steps.len() {
            let mut shorter = short.clone();
            shorter.steps.remove(at);
            assert!(run(&shorter).is_ok(), "step {at} does not matter: {short}");
        }
        mutant::set(None);
        assert_eq!(run(&short).err(), None, "without the bug it holds");
    }

    /// What the one above prints, as it was printed.
    fn printed() -> Script {
        let steps = vec![
            Step::Commit {
                region: 2,
                ops: vec![Op::Write {
                    table: Name::Delta,
                    id: 1,
                    a: Some(11),
                    b: None,
                    n: 0,
                    u: 0,
                }],
            },
            Step::Commit {
                region: 1,
                ops: vec![Op::Write {
                    table: Name::Delta,
                    id: 1,
                    a: Some(14),
                    b: Some(71),
                    n: -2,
                    u: 2,
                }],
            },
            Step::Commit { region: 1, ops: vec![Op::Delete { table: Name::Delta, id: 1 }] },
        ];
        Script { regions: 4, steps }
    }

    #[test]
    fn a_printed_script_is_a_test_as_it_is() {
        let script = printed();
        assert_eq!(run(&script).err(), None);
        mutant::set(Some(Mutant::DeltaIgnoresDeletes));
        assert!(run(&script).is_err_and(|error| error.starts_with("convergence")));
        mutant::set(None);
        let text = script.to_string();
        let step =
            "Step::Commit { region: 1, ops: vec![Op::Delete { table: Name::Delta, id: 1 }] },";
        assert!(text.starts_with("#[test]\nfn ") && text.contains(step), "{text}");
    }
}
