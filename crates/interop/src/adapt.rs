//! Adapts a model to other classes or input channels.

use burn::tensor::TensorData;
use mbconv_nets::weights::{WeightsError, adapt, load_state_dict, state_dict};
use mbconv_nets::{Architecture, Network, NetworkOptions};

use crate::model_file::{Model, ModelCard, ModelError, MultiLabel};

impl Model {
    /// Sets the classes; returns a note for the user about changes. The same number of classes only
    /// renames them; any other number reinitializes the classifier.
    ///
    /// # Errors
    /// More classes than a network can have, or none.
    pub fn with_classes(self, classes: Vec<String>) -> Result<(Self, Option<String>), ModelError> {
        let before = self.card.classes.len();
        if before == classes.len() {
            return Ok((Self { card: ModelCard { classes, ..self.card }, ..self }, None));
        }
        let options = NetworkOptions { num_classes: classes.len(), ..self.card.architecture.clone() };
        let model = self.adapted(options)?;
        let note = format!("the classifier is new, for {} classes instead of {before}: train it", classes.len());
        Ok((Self { card: ModelCard { classes, ..model.card }, ..model }, Some(note)))
    }

    /// Sets the number of input channels, see [`adapt`]; returns a note for the user about changes.
    ///
    /// # Errors
    /// More channels than a network can have, or none.
    pub fn with_input_channels(self, input_channels: usize) -> Result<(Self, Option<String>), ModelError> {
        let before = self.card.architecture.input_channels;
        if before == input_channels {
            return Ok((self, None));
        }
        let options = NetworkOptions { input_channels, ..self.card.architecture.clone() };
        let mut model = self.adapted(options)?;
        model.card.preprocess = model.card.preprocess.with_channels(input_channels);
        let (change, channels) =
            if input_channels == 1 { ("summed", "channel") } else { ("repeated and scaled", "channels") };
        let note =
            format!("the stem's weights are {change}, for {input_channels} input {channels} instead of {before}");
        Ok((model, Some(note)))
    }

    /// Divides the classifier's weights and biases by the card's temperature, if it has one, so
    /// that the softmax of the logits gives calibrated probabilities. The card of the result has
    /// none.
    pub fn calibrated(mut self) -> Self {
        if let Some(temperature) = self.card.temperature.take() {
            let classifier = &mut self.network.classifier;
            classifier.weight = classifier.weight.clone().map(|weight| weight.div_scalar(temperature));
            classifier.bias = classifier.bias.clone().map(|bias| bias.div_scalar(temperature));
        }
        self
    }

    /// Prepends an output of 0 to the only output: the softmax of both equals the sigmoid of the
    /// original one. `classes` are the names of both.
    pub(crate) fn with_two_outputs(self, classes: Vec<String>) -> Result<Self, WeightsError> {
        let options = NetworkOptions { num_classes: 2, ..self.card.architecture };
        let architecture = Architecture { num_classes: 2, ..self.network.architecture().clone() };
        let state = state_dict(&self.network).into_iter().map(|(info, data)| {
            let data = match info.path.starts_with("classifier.") {
                true => {
                    let values: Vec<f32> =
                        std::iter::repeat_n(0.0, info.elements()).chain(data.iter::<f32>()).collect();
                    let shape: Vec<usize> = std::iter::once(2).chain(info.shape[1..].iter().copied()).collect();
                    TensorData::new(values, shape)
                }
                false => data,
            };
            (info.key, data)
        });
        let device = self.network.classifier.weight.val().device();
        let network = load_state_dict(Network::new(&architecture, &device), state.collect())?;
        Ok(Self { card: ModelCard { architecture: options, classes, ..self.card }, network, path: self.path })
    }

    /// Returns the model with weights adapted to `options`.
    fn adapted(self, options: NetworkOptions) -> Result<Self, ModelError> {
        let path = || self.path.display().to_string();
        let architecture =
            options.architecture().map_err(|error| ModelError::Card { path: path(), message: error.to_string() })?;
        let network =
            adapt(&self.network, &architecture).map_err(|source| ModelError::Weights { path: path(), source })?;
        // These belong to the original network.
        let (recipe, results, temperature) = Default::default();
        let multi_label = self.card.multi_label.map(|_| MultiLabel::default());
        let card = ModelCard { architecture: options, recipe, results, temperature, multi_label, ..self.card };
        Ok(Self { card, network, path: self.path })
    }
}
