//! Who watches a run: anything that takes its [`Event`]s.

use std::io;

use crate::engine::Event;

/// Something that takes the events of a run. A failing one is not asked again, and never ends the run.
pub trait Observer {
    /// Takes one event.
    ///
    /// # Errors
    /// Whatever keeps it from its work, such as a full disk.
    fn event(&mut self, event: &Event) -> io::Result<()>;
}

/// Observers that are told everything in turn.
#[derive(Default)]
pub struct Observers<'a> {
    all: Vec<(&'static str, Box<dyn Observer + 'a>)>,
}

impl<'a> Observers<'a> {
    /// Adds an observer; `name` says what it is, should it fail. The first is told what befalls the others.
    pub fn add(&mut self, name: &'static str, observer: impl Observer + 'a) {
        self.all.push((name, Box::new(observer)));
    }

    /// Tells all of them.
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
            // What cannot be told to the first cannot be told.
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
    fn a_failing_observer_is_named_once_and_left_out() {
        let lines = RefCell::new(Vec::new());
        let mut observers = Observers::default();
        observers.add("terminal", Recorder(&lines));
        observers.add("curves", Failing(0));
        observers.event(&Event::Line("one"));
        observers.event(&Event::Line("two"));
        assert_eq!(*lines.borrow(), ["one", "note: no more curves: disk full", "two"]);
    }
}
