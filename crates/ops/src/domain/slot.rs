//! Values that exist later than the job or op that refers to them.

use std::fmt;

use parking_lot::Mutex;

/// A value that is set once its maker exists, and may be removed before its reader goes.
pub struct Slot<T>(Mutex<Option<T>>);

impl<T: Clone> Slot<T> {
    /// Sets the value, in the place of a former one.
    pub fn set(&self, value: T) {
        let former = self.0.lock().replace(value);
        drop(former);
    }

    /// The value; none before it is set and after it is removed.
    pub fn get(&self) -> Option<T> {
        self.0.lock().clone()
    }

    /// The value; `make` makes it if it is not set.
    pub fn get_or_set(&self, make: impl FnOnce() -> T) -> T {
        self.0.lock().get_or_insert_with(make).clone()
    }

    /// Removes the value.
    pub fn clear(&self) {
        let former = self.0.lock().take();
        drop(former);
    }
}

impl<T> Default for Slot<T> {
    fn default() -> Self {
        Self(Mutex::default())
    }
}

impl<T> fmt::Debug for Slot<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Slot")
            .field(&self.0.lock().is_some())
            .finish()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_slot_is_empty_until_it_is_set_and_after_it_is_cleared() {
        let slot = Slot::default();
        assert_eq!(slot.get(), None);
        slot.set(1);
        assert_eq!(slot.get_or_set(|| unreachable!("it is set")), 1);
        slot.set(2);
        assert_eq!(
            (slot.get(), format!("{slot:?}").as_str()),
            (Some(2), "Slot(true)")
        );
        slot.clear();
        assert_eq!(slot.get(), None);
        assert_eq!(slot.get_or_set(|| 3), 3);
        assert_eq!(slot.get(), Some(3));
    }
}
