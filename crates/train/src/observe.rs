//! Observers of a run, which receive its [`Event`]s.

use std::io;

use crate::engine::event::Event;

/// Receives the events of a run. An observer that fails is removed; the run continues.
pub trait Observer {
    /// Handles an event.
    ///
    /// # Errors
    /// Returns an error if the observer cannot continue, for example if the disk is full.
    fn event(&mut self, event: &Event) -> io::Result<()>;
}

/// Observers that receive each event in turn.
#[derive(Default)]
pub struct Observers<'a> {
    all: Vec<(&'static str, Box<dyn Observer + 'a>)>,
}

impl<'a> Observers<'a> {
    /// Adds an observer. `name` identifies it in the message about a failure, which the first
    /// observer receives.
    pub fn add(&mut self, name: &'static str, observer: impl Observer + 'a) {
        self.all.push((name, Box::new(observer)));
    }

    /// Sends an event to all observers.
    pub fn event(&mut self, event: &Event) {
        let mut notes = Vec::new();
        self.all.retain_mut(|(name, observer)| match observer.event(event) {
            Ok(()) => true,
            Err(error) => {
                notes.push(format!("note: no more {name}: {error}"));
                false
            }
        });
        if let Some((_, first)) = self.all.first_mut() {
            // Errors of the first observer while it receives these notes cannot be reported.
            notes.iter().for_each(|note| drop(first.event(&Event::Line(note))));
        }
    }
}

#[cfg(test)]
mod tests {
    use std::cell::RefCell;

    use super::*;

    struct Recorder<'a>(&'a RefCell<Vec<String>>);

    impl Observer for Recorder<'_> {
        fn event(&mut self, event: &Event) -> io::Result<()> {
            if let Event::Line(line) = event {
                self.0.borrow_mut().push(line.to_string());
            }
            Ok(())
        }
    }

    struct Failing(usize);

    impl Observer for Failing {
        fn event(&mut self, _: &Event) -> io::Result<()> {
            assert_eq!(self.0, 0, "asked again");
            self.0 += 1;
            Err(io::Error::other("disk full"))
        }
    }

    #[test]
    fn failing_observer_is_reported_once_and_removed() {
        let lines = RefCell::new(Vec::new());
        let mut observers = Observers::default();
        observers.add("terminal", Recorder(&lines));
        observers.add("curves", Failing(0));
        observers.event(&Event::Line("one"));
        observers.event(&Event::Line("two"));
        assert_eq!(*lines.borrow(), ["one", "note: no more curves: disk full", "two"]);
    }
}
