//! The rungs of successive halving.

use super::error::TuneError;

/// A rung: the number of trials that reach it, and the epochs to which they are trained.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Rung {
    /// Number of trials.
    pub trials: usize,
    /// Epochs, or `None` for all of the recipe.
    pub epochs: Option<usize>,
}

/// Returns the rungs of a study, the largest first. With `eta`, each rung has a fraction 1/eta of
/// the trials of the rung before, and eta times its epochs; the last has all `epochs`.
pub(super) fn rungs(trials: usize, epochs: usize, eta: Option<usize>) -> Result<Vec<Rung>, TuneError> {
    let Some(eta) = eta else { return Ok(vec![Rung { trials, epochs: None }]) };
    let powers = (1..).map(|power| eta.checked_pow(power));
    let levels = powers.take_while(|power| power.is_some_and(|power| power <= trials.min(epochs))).count();
    if levels == 0 {
        return Err(TuneError::Halving { eta, trials, epochs });
    }
    let rung = |level: usize| {
        let later = eta.pow((levels - level) as u32) as f64;
        let part = (epochs as f64 / later).round().max(1.0) as usize;
        Rung { trials: trials / eta.pow(level as u32), epochs: (level < levels).then_some(part) }
    };
    Ok((0..=levels).map(rung).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_rung_has_fewer_trials_and_more_epochs() {
        let all = |trials, epochs, eta| -> Vec<(usize, Option<usize>)> {
            rungs(trials, epochs, eta).unwrap().iter().map(|rung| (rung.trials, rung.epochs)).collect()
        };
        assert_eq!(all(20, 30, None), [(20, None)]);
        assert_eq!(all(20, 30, Some(3)), [(20, Some(3)), (6, Some(10)), (2, None)]);
        assert_eq!(all(27, 2, Some(2)), [(27, Some(1)), (13, None)]);
        assert_eq!(all(9, 100, Some(3)), [(9, Some(11)), (3, Some(33)), (1, None)]);
        for (trials, epochs) in [(2, 30), (20, 2), (1, 1)] {
            assert!(matches!(rungs(trials, epochs, Some(3)), Err(TuneError::Halving { eta: 3, .. })));
        }
    }
}
