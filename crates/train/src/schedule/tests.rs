use proptest::prelude::*;

use super::*;

const CURVES: [Curve; 8] = [
    Curve::Cosine,
    Curve::Linear,
    Curve::Constant,
    Curve::Polynomial,
    Curve::Step,
    Curve::Exponential,
    Curve::OneCycle,
    Curve::Plateau,
];

fn close(found: f64, expected: f64) {
    assert!((found - expected).abs() < 1e-9, "{found}, not {expected}");
}

#[test]
fn cosine_follows_linear_warmup() {
    let schedule = ScheduleConfig { warmup_epochs: 1.0, warmup_start: 0.1, ..Default::default() };
    let factor = |step| schedule.factor(step, 10, 11);
    close(factor(0), 0.1);
    close(factor(5), 0.55);
    close(factor(10), 1.0);
    close(factor(60), 0.5);
    assert!(factor(109) < 1e-3);
}

#[test]
fn decay_intervals_are_counted_from_the_start_of_the_run() {
    let warmup_epochs = 1.0;
    let schedule = ScheduleConfig { name: Curve::Exponential, warmup_epochs, ..Default::default() };
    for (step, falls) in [(10, 0), (23, 0), (24, 1), (47, 1), (48, 2), (95, 3), (96, 4)] {
        close(schedule.factor(step, 10, 20), 0.97f64.powi(falls));
    }
    let smooth = ScheduleConfig { staircase: false, ..schedule };
    close(smooth.factor(36, 10, 20), 0.97f64.powf(1.5));
    let steps = ScheduleConfig { name: Curve::Step, every: Some(2.0), decay: Some(0.5), ..Default::default() };
    close(steps.factor(39, 10, 20), 0.5);
    close(steps.factor(40, 10, 20), 0.25);
    let milestones = ScheduleConfig { milestones: Some(vec![1.0, 3.0]), ..steps };
    close(milestones.factor(29, 10, 20), 0.5);
    close(milestones.factor(30, 10, 20), 0.25);
}

/// From `torch.optim.lr_scheduler.OneCycleLR(max_lr=1, total_steps=20)`, at steps 0, 2, 5, 6,
/// 12 and 19.
#[test]
fn one_cycle_matches_pytorch() {
    let schedule =
        ScheduleConfig { name: Curve::OneCycle, warmup_start: 0.04, final_factor: 4e-6, ..Default::default() };
    for (step, expected) in ONE_CYCLE {
        close(schedule.factor(step, 5, 4), expected);
    }
}
const ONE_CYCLE: [(usize, f64); 6] = [
    (0, 0.040000000000000036),
    (2, 0.3716718427000253),
    (5, 1.0),
    (6, 0.9874640062350873),
    (12, 0.500002),
    (19, 4e-06),
];

#[test]
fn plateau_decays_after_patience() {
    let schedule = ScheduleConfig { name: Curve::Plateau, patience: 2, ..Default::default() };
    for (scores, falls) in [
        (&[][..], 0),
        (&[0.1, 0.2, 0.2, 0.1], 0),
        (&[0.1, 0.2, 0.2, 0.1, 0.2], 1),
        (&[0.1, 0.2, 0.2, 0.1, 0.2, 0.3, 0.3, 0.3], 1),
        (&[0.1, 0.1, 0.1, 0.1, 0.1, 0.1, 0.1], 2),
    ] {
        close(schedule.after(scores.iter().map(|&score| [score, 0.0])), 0.1f64.powi(falls));
    }
    assert_eq!(ScheduleConfig::default().after([[0.1; 2]; 50]), 1.0);
}

proptest! {
    #[test]
    fn factors_are_in_range_and_decrease_after_warmup(
        warmup in 0.0f64..3.0, last in 0.0f64..1.0, steps in 1usize..50, epochs in 3usize..20,
    ) {
        for name in CURVES {
            let schedule = ScheduleConfig {
                name, warmup_epochs: warmup, warmup_start: 0.0, final_factor: last, ..Default::default()
            };
            let factors: Vec<f64> = (0..steps * epochs).map(|step| schedule.factor(step, steps, epochs)).collect();
            prop_assert!(factors.iter().all(|f| (0.0..=1.0).contains(f)));
            let warmup = if name == Curve::OneCycle && warmup == 0.0 { 0.3 * epochs as f64 } else { warmup };
            let peak = (warmup * steps as f64).ceil() as usize;
            prop_assert!(factors[peak.min(factors.len() - 1)..].windows(2).all(|pair| pair[1] <= pair[0] + 1e-12));
        }
    }
}
