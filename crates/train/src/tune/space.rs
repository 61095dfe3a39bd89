//! The search space: recipe keys with distributions.

use std::collections::BTreeMap;
use std::fmt;

use crate::config::{RecipeError, RecipeFile};
use crate::fnv::{BASIS, fnv};

/// Distribution of a key's values.
#[derive(Clone, Debug, PartialEq)]
pub enum Distribution {
    /// `log(a,b)`: numbers whose logarithm is uniform.
    Log(f64, f64),
    /// `uniform(a,b)`: numbers.
    Uniform(f64, f64),
    /// `int(a,b)`: whole numbers, both limits included.
    Int(i64, i64),
    /// `choice(x,y,z)`: one of these values.
    Choice(Vec<toml::Value>),
}

/// A key to search.
#[derive(Clone, Debug, PartialEq)]
pub struct Dimension {
    /// Dotted key of the recipe.
    pub key: String,
    /// Distribution of its values.
    pub distribution: Distribution,
    /// The setting, as given.
    setting: String,
}

/// The keys to search.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Space {
    /// The keys, in the order of their settings.
    pub dimensions: Vec<Dimension>,
}

/// Values of the keys of a trial.
pub type Values = BTreeMap<String, toml::Value>;

/// An invalid setting of the search space.
#[derive(Clone, Debug, PartialEq, thiserror::Error)]
#[error("--set '{setting}': {message}")]
pub struct SpaceError {
    /// The setting.
    pub setting: String,
    /// Description of the error.
    pub message: String,
    /// Fix.
    pub fix: String,
}

/// The distributions, for error messages.
const DISTRIBUTIONS: &str = "the distributions are log(a,b), uniform(a,b), int(a,b) and choice(x,y,z)";

/// Number of attempts to draw values that no earlier trial has.
const ATTEMPTS: u64 = 100;

impl Space {
    /// Divides settings into the search space and the settings with a fixed value.
    ///
    /// # Errors
    /// Returns an error if a distribution or its limits are invalid, or a key is set twice.
    pub fn parse(settings: &[String]) -> Result<(Self, Vec<String>), SpaceError> {
        let (mut dimensions, mut fixed) = (Vec::<Dimension>::new(), Vec::new());
        for setting in settings {
            let Some((key, name, arguments)) = call(setting) else {
                fixed.push(setting.clone());
                continue;
            };
            let distribution = Distribution::parse(name, arguments).map_err(|(message, fix)| SpaceError {
                setting: setting.clone(),
                message,
                fix,
            })?;
            dimensions.push(Dimension { key: key.into(), distribution, setting: setting.clone() });
        }
        for (index, dimension) in dimensions.iter().enumerate() {
            let key = |setting: &String| setting.split('=').next().unwrap_or_default().trim().to_string();
            let twice = dimensions[..index].iter().any(|other| other.key == dimension.key);
            if twice || fixed.iter().any(|setting| key(setting) == dimension.key) {
                return Err(dimension.error("the key is set twice", "set it once".into()));
            }
        }
        Ok((Self { dimensions }, fixed))
    }

    /// Checks that the recipe has all keys, and that they accept the limits and choices.
    ///
    /// # Errors
    /// Returns an error with the first invalid setting.
    pub fn check(&self, base: &RecipeFile, halving: bool) -> Result<(), SpaceError> {
        for dimension in &self.dimensions {
            let key = dimension.key.as_str();
            let refuse = |message: &str, fix: &str| Err(dimension.error(message, fix.into()));
            if key.starts_with("data.") {
                return refuse("all trials share one data set", "search other keys, and set this one to a value");
            }
            if key == "checkpoint.metric" {
                return refuse("the metric ranks the trials", "choose it with --metric");
            }
            if key == "epochs" && halving {
                return refuse("successive halving chooses the epochs", "omit --halving, or set epochs to a value");
            }
            for value in dimension.extremes() {
                dimension.check(base, &value)?;
            }
        }
        Ok(())
    }

    /// Draws the values of `count` trials. Fewer are returned if there are no further values.
    pub fn draw(&self, seed: u64, count: usize) -> Vec<Values> {
        let mut drawn: Vec<Values> = Vec::new();
        while drawn.len() < count {
            let trial = drawn.len() as u64;
            let attempts = (0..ATTEMPTS).map(|attempt| self.values(seed, trial, attempt));
            let Some(values) = attempts.into_iter().find(|values| !drawn.contains(values)) else { break };
            drawn.push(values);
        }
        drawn
    }

    fn values(&self, seed: u64, trial: u64, attempt: u64) -> Values {
        let draw = |dimension: &Dimension| {
            let key = fnv(BASIS, dimension.key.as_bytes());
            let number = [seed, trial, attempt].iter().fold(key, |hash, part| fnv(hash, &part.to_le_bytes()));
            (dimension.key.clone(), dimension.distribution.at(unit(number)))
        };
        self.dimensions.iter().map(draw).collect()
    }
}

/// Returns `values` as settings of a recipe.
pub(super) fn settings(values: &Values) -> Vec<String> {
    values.iter().map(|(key, value)| format!("{key}={value}")).collect()
}

/// Returns a value as text, strings without quotes.
pub(super) fn text(value: &toml::Value) -> String {
    value.as_str().map_or_else(|| value.to_string(), String::from)
}

/// Returns key, name and arguments of a setting `key=name(arguments)` if `name` is a distribution
/// or there are several arguments.
fn call(setting: &str) -> Option<(&str, &str, &str)> {
    let (key, value) = setting.split_once('=')?;
    let (name, arguments) = value.trim().strip_suffix(')')?.split_once('(')?;
    let is_name = !name.is_empty() && name.chars().all(|c| c.is_ascii_alphanumeric() || c == '_');
    let known = ["log", "uniform", "int", "choice"].contains(&name);
    (is_name && (known || arguments.contains(','))).then_some((key.trim(), name, arguments))
}

/// Returns a uniform number in `[0, 1)` from a hash (the finalizer of SplitMix64).
fn unit(hash: u64) -> f64 {
    let mixed = (hash ^ (hash >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    let mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    ((mixed ^ (mixed >> 31)) >> 11) as f64 / (1u64 << 53) as f64
}

/// Message and fix of an invalid distribution.
type Fault = (String, String);

impl Distribution {
    fn parse(name: &str, arguments: &str) -> Result<Self, Fault> {
        match name {
            "log" => {
                let (low, high) = limits(name, arguments)?;
                if low <= 0.0 {
                    let least = if high > 0.0 { high.min(1.0) / 1000.0 } else { 1e-3 };
                    let high = if high > 0.0 { high } else { 1.0 };
                    return Err(("log needs limits above 0".into(), format!("write log({least},{high})")));
                }
                Ok(Self::Log(low, high))
            }
            "uniform" => limits(name, arguments).map(|(low, high)| Self::Uniform(low, high)),
            "int" => {
                let (low, high) = limits(name, arguments)?;
                if low.fract() != 0.0 || high.fract() != 0.0 || low.abs().max(high.abs()) > 2f64.powi(53) {
                    let fix = format!("write int({:.0},{:.0}), or uniform({arguments})", low.floor(), high.ceil());
                    return Err(("int needs whole numbers".into(), fix));
                }
                Ok(Self::Int(low as i64, high as i64))
            }
            "choice" => {
                let choices: Vec<toml::Value> =
                    parts(arguments).into_iter().filter(|part| !part.is_empty()).map(value).collect();
                if choices.len() < 2 || (1..choices.len()).any(|index| choices[..index].contains(&choices[index])) {
                    return Err(("choice needs at least two different values".into(), "write choice(x,y)".into()));
                }
                Ok(Self::Choice(choices))
            }
            name => Err((format!("there is no distribution `{name}`"), DISTRIBUTIONS.into())),
        }
    }

    /// Returns the value at `u` of `[0, 1)`. Numbers have four digits.
    fn at(&self, u: f64) -> toml::Value {
        let rounded = |number: f64, low: f64, high: f64| {
            let digits: f64 = format!("{number:.3e}").parse().unwrap_or(number);
            toml::Value::Float(digits.clamp(low, high))
        };
        match self {
            Self::Log(low, high) => rounded((low.ln() + u * (high.ln() - low.ln())).exp(), *low, *high),
            Self::Uniform(low, high) => rounded(low + u * (high - low), *low, *high),
            Self::Int(low, high) => {
                let count = (high - low + 1) as f64;
                toml::Value::Integer((low + (u * count) as i64).min(*high))
            }
            Self::Choice(choices) => choices[((u * choices.len() as f64) as usize).min(choices.len() - 1)].clone(),
        }
    }
}

impl Dimension {
    fn error(&self, message: impl Into<String>, fix: String) -> SpaceError {
        SpaceError { setting: self.setting.clone(), message: message.into(), fix }
    }

    /// Returns the limits, or all choices.
    fn extremes(&self) -> Vec<toml::Value> {
        match &self.distribution {
            Distribution::Log(low, high) | Distribution::Uniform(low, high) => {
                [low, high].map(|limit| toml::Value::Float(*limit)).into()
            }
            Distribution::Int(low, high) => [low, high].map(|limit| toml::Value::Integer(*limit)).into(),
            Distribution::Choice(choices) => choices.clone(),
        }
    }

    /// Checks that the recipe accepts a value. Whether it fits the values of other keys is checked
    /// in each trial.
    fn check(&self, base: &RecipeFile, value: &toml::Value) -> Result<(), SpaceError> {
        let checked = base.with(&[format!("{}={value}", self.key)]).and_then(crate::Recipe::try_from);
        let hint = |error: &RecipeError| {
            error.hint().unwrap_or_else(|| format!("`mbconv recipe keys {}` describes the key", self.key))
        };
        match checked {
            Err(error @ RecipeError::Parse { .. }) => {
                let RecipeError::Parse { message, .. } = &error else { return Ok(()) };
                let fix = match self.distribution {
                    Distribution::Log(low, high) | Distribution::Uniform(low, high)
                        if message.contains("invalid type") && message.contains("float") =>
                    {
                        format!("the key has whole numbers: write int({:.0},{:.0})", low.ceil(), high.floor())
                    }
                    _ => hint(&error),
                };
                let message: Vec<&str> = message.lines().filter(|line| !line.is_empty()).collect();
                Err(self.error(format!("{value}: {}", message.join(" ")), fix))
            }
            Err(RecipeError::OutOfRange { key, value, expected }) if key == self.key => {
                Err(self.error(format!("{value} is out of range, it must be {expected}"), hint_of(&self.key)))
            }
            Err(error @ (RecipeError::Model(_) | RecipeError::Table { .. })) if self.key.starts_with("model.") => {
                Err(self.error(error.to_string(), hint(&error)))
            }
            Err(error @ RecipeError::Override { .. }) => Err(self.error(error.to_string(), hint(&error))),
            _ => Ok(()),
        }
    }
}

fn hint_of(key: &str) -> String {
    format!("`mbconv recipe keys {key}` describes the key")
}

/// Parses the two limits of a range.
fn limits(name: &str, arguments: &str) -> Result<(f64, f64), Fault> {
    let example = if name == "int" { "int(1,10)" } else { "log(1e-4,0.1)".trim_start_matches(|_| name != "log") };
    let example = if example.is_empty() { format!("{name}(0.1,1)") } else { example.to_string() };
    let fix = format!("write two numbers, such as {example}");
    let texts: Vec<&str> = arguments.split(',').map(str::trim).collect();
    let [low, high] = texts[..] else { return Err((format!("{name} needs two limits"), fix)) };
    let number = |text: &str| text.parse::<f64>().ok().filter(|number| number.is_finite());
    let wrong = |text: &str| (format!("`{text}` is not a number"), fix.clone());
    let (a, b) = (number(low).ok_or_else(|| wrong(low))?, number(high).ok_or_else(|| wrong(high))?);
    if a > b {
        return Err(("the lower limit is above the upper limit".into(), format!("write {name}({high},{low})")));
    }
    if a == b {
        return Err(("both limits are the same".into(), format!("set the key to the value {low}, without {name}")));
    }
    Ok((a, b))
}

/// Splits at commas outside brackets and quotes.
fn parts(text: &str) -> Vec<&str> {
    let (mut parts, mut start, mut depth, mut quote) = (Vec::new(), 0, 0, None);
    for (index, c) in text.char_indices() {
        match (quote, c) {
            (Some(open), c) if open == c => quote = None,
            (None, '"' | '\'') => quote = Some(c),
            (None, '[' | '{') => depth += 1,
            (None, ']' | '}') => depth -= 1,
            (None, ',') if depth == 0 => {
                parts.push(text[start..index].trim());
                start = index + 1;
            }
            _ => {}
        }
    }
    parts.push(text[start..].trim());
    parts
}

/// Parses a TOML value; bare words are strings.
fn value(text: &str) -> toml::Value {
    let parsed = toml::from_str::<toml::Table>(&format!("value = {text}")).ok();
    parsed.and_then(|mut table| table.remove("value")).unwrap_or_else(|| toml::Value::String(text.into()))
}

impl fmt::Display for Dimension {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.setting)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const RECIPE: &str = "epochs = 3\nbatch_size = 4\n[model]\nname = \"mobilenet_v2_0.1\"\n[input]\nsize = 32\n\
                          [optimizer]\nname = \"sgd\"\nlearning_rate = 0.1\n";

    fn strings(settings: &[&str]) -> Vec<String> {
        settings.iter().map(|setting| setting.to_string()).collect()
    }

    #[test]
    fn settings_are_divided_into_ranges_and_values() {
        let settings = strings(&[
            "optimizer.learning_rate=log(1e-4, 1e-1)",
            "epochs=3",
            "batch_size = int(2,8)",
            "augment.policy=rand-m9-mstd0.5",
            "input.scale=choice([0.2, 1.0],[0.5,1.0])",
            "model.name=choice(mobilenet_v2_0.1,\"a,b\")",
            "data.path=photos (1)",
        ]);
        let (space, fixed) = Space::parse(&settings).unwrap();
        assert_eq!(fixed, ["epochs=3", "augment.policy=rand-m9-mstd0.5", "data.path=photos (1)"]);
        let distributions: Vec<&Distribution> = space.dimensions.iter().map(|d| &d.distribution).collect();
        assert_eq!(distributions[..2], [&Distribution::Log(1e-4, 1e-1), &Distribution::Int(2, 8)]);
        let Distribution::Choice(choices) = distributions[2] else { panic!("{:?}", distributions[2]) };
        assert_eq!(choices.iter().map(ToString::to_string).collect::<Vec<_>>(), ["[0.2, 1.0]", "[0.5, 1.0]"]);
        let Distribution::Choice(choices) = distributions[3] else { panic!("{:?}", distributions[3]) };
        assert_eq!(choices[1].as_str(), Some("a,b"));
    }

    #[test]
    fn invalid_ranges_name_the_setting_and_the_fix() {
        for (setting, message, fix) in [
            ("optimizer.learning_rate=log(0,1)", "log needs limits above 0", "log(0.001,1)"),
            ("optimizer.learning_rate=log(-1,-2)", "the lower limit is above", "log(-2,-1)"),
            ("optimizer.learning_rate=log(0.1,1e-3)", "the lower limit is above the upper limit", "log(1e-3,0.1)"),
            ("epochs=int(1.5,3)", "int needs whole numbers", "int(1,3)"),
            ("epochs=int(3,3)", "both limits are the same", "the value 3"),
            ("epochs=int(3)", "int needs two limits", "int(1,10)"),
            ("model.dropout=uniform(0,x)", "`x` is not a number", "uniform(0.1,1)"),
            ("model.dropout=uniform(0,inf)", "`inf` is not a number", "two numbers"),
            ("model.dropout=choice(0.1)", "at least two different values", "choice(x,y)"),
            ("model.dropout=choice(0.1,0.1)", "at least two different values", "choice(x,y)"),
            ("model.dropout=normal(0,1)", "no distribution `normal`", "uniform(a,b)"),
        ] {
            let error = Space::parse(&strings(&[setting])).unwrap_err();
            assert!(error.to_string().contains(&format!("--set '{setting}'")), "{error}");
            assert!(error.message.contains(message) && error.fix.contains(fix), "{setting}: {error}: {}", error.fix);
        }
        for twice in [["seed=int(1,2)", "seed=int(1,3)"], ["seed=3", "seed=int(1,3)"]] {
            assert!(Space::parse(&strings(&twice)).unwrap_err().message.contains("set twice"));
        }
    }

    #[test]
    fn values_that_the_recipe_rejects_name_the_setting_and_the_fix() {
        let base = RecipeFile::parse(RECIPE, "text", &[]).unwrap();
        let check = |setting: &str, halving| {
            let (space, _) = Space::parse(&strings(&[setting])).unwrap();
            space.check(&base, halving)
        };
        for (setting, message, fix) in [
            ("optimizer.learning_rat=log(1e-3,1)", "learning_rat", "did you mean `optimizer.learning_rate`?"),
            ("epochs=uniform(2,10)", "invalid type", "int(2,10)"),
            ("epochs=int(0,10)", "between 1 and", "recipe keys epochs"),
            ("label_smoothing=uniform(0,1)", "below 1", "recipe keys label_smoothing"),
            ("optimizer.momentum=choice(0.9,high)", "high", "optimizer.momentum"),
            ("optimizer.name=choice(sgd,adamv)", "adamv", "did you mean \"adamw\"?"),
            ("model.name=choice(mobilenet_v2_0.1,vgg)", "vgg", ""),
            ("data.workers=int(1,4)", "one data set", "other keys"),
            ("checkpoint.metric=choice(loss,top1)", "ranks the trials", "--metric"),
        ] {
            let error = check(setting, false).unwrap_err();
            assert!(error.to_string().contains(setting) && error.message.contains(message), "{error}");
            assert!(error.fix.contains(fix), "{setting}: {}", error.fix);
        }
        assert!(check("epochs=int(2,10)", false).is_ok());
        assert!(check("epochs=int(2,10)", true).unwrap_err().message.contains("chooses the epochs"));
        // Warm-up of three epochs fits no trial of two, which is found when it is trained.
        assert!(check("schedule.warmup_epochs=choice(1,3)", false).is_ok());
    }

    #[test]
    fn draws_are_reproducible_within_limits_and_different() {
        let settings = strings(&[
            "optimizer.learning_rate=log(1e-4,1e-1)",
            "model.dropout=uniform(0.1,0.5)",
            "batch_size=int(2,4)",
            "optimizer.name=choice(sgd,adamw)",
        ]);
        let (space, _) = Space::parse(&settings).unwrap();
        let drawn = space.draw(7, 300);
        assert_eq!(drawn[..20], space.draw(7, 20)[..]);
        assert!(drawn[0] != space.draw(8, 1)[0]);
        let numbers = |key: &str| -> Vec<f64> {
            let number = |value: &toml::Value| value.as_float().or(value.as_integer().map(|n| n as f64)).unwrap();
            drawn.iter().map(|values| number(&values[key])).collect()
        };
        for (key, low, high, middle) in [
            ("optimizer.learning_rate", 1e-4, 1e-1, 10f64.powf(-2.5)),
            ("model.dropout", 0.1, 0.5, 0.3),
            ("batch_size", 2.0, 4.0, 2.5),
        ] {
            let numbers = numbers(key);
            assert!(numbers.iter().all(|number| (low..=high).contains(number)), "{key}");
            let below = numbers.iter().filter(|number| **number < middle).count();
            let share = if key == "batch_size" { 100 } else { 150 };
            assert!(below.abs_diff(share) < 35, "{key}: {below} of 300 below {middle}");
        }
        let adamw = drawn.iter().filter(|values| values["optimizer.name"].as_str() == Some("adamw")).count();
        assert!(adamw.abs_diff(150) < 35, "{adamw}");
        // Four digits.
        assert!(numbers("optimizer.learning_rate").iter().all(|rate| format!("{rate:e}").len() <= 8));
        // A small space has no more trials than values.
        let (small, _) = Space::parse(&strings(&["batch_size=int(2,4)", "seed=choice(1,2)"])).unwrap();
        assert_eq!(small.draw(0, 20).len(), 6);
    }
}
