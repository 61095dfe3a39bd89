//! Replays the fuzz target of names: some names, and mutations of them. See `fuzz/README.md`.

#[path = "../../../fuzz/src/names.rs"]
mod names;

const NAMES: [&str; 3] = [
    "hf:google/mobilenet_v2_1.0_224@main/model.safetensors",
    "https://example.org/models/net-0123abcd.pth#sha256=0123abcd",
    "timm/mobilenetv2_100.ra_in1k",
];
const PIECES: [&str; 12] = ["..", "/", "\\", "@", ":", "#", "hf:", "../", "%2e%2e", "\0", "é", "timm/"];

#[test]
fn mutated_names_stay_inside_the_cache() {
    // Knuth's generator: the same inputs every time.
    let mut state = 1u64;
    let mut below = |limit: usize| {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (state >> 33) as usize % limit
    };
    for name in NAMES {
        assert!(names::weights_name(name), "{name}");
    }
    for _ in 0..5000 {
        let mut text: Vec<char> = NAMES[below(NAMES.len())].chars().collect();
        for _ in 0..1 + below(4) {
            let at = below(text.len() + 1);
            match below(3) {
                0 => drop(text.splice(at..at, PIECES[below(PIECES.len())].chars())),
                1 => text.truncate(at),
                _ => drop(text.drain(at..(at + 1 + below(6)).min(text.len()).max(at))),
            }
        }
        names::weights_name(&text.into_iter().collect::<String>());
    }
}
