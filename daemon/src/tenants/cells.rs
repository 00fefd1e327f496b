//! Values that are opened once for each key, used by many, and closed once when nobody uses them any more.

use std::collections::HashMap;
use std::fmt;
use std::hash::Hash;
use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;
use tokio::sync::{OnceCell, watch};

/// The values, by key. Closed when there is no map any more.
pub(super) struct Cells<K, V> {
    open: Mutex<Option<HashMap<K, Arc<OnceCell<V>>>>>,
    /// How many hold a cell at the moment.
    users: watch::Sender<usize>,
}

/// Why there is no cell for a key.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum NoCell {
    /// As many keys as may be open are.
    Full,
    /// Everything was closed.
    Closed,
}

/// A cell in use. [`Cells::close`] waits until it is dropped.
pub(super) struct InUse<'a, V> {
    // Dropped before the count goes down.
    cell: Arc<OnceCell<V>>,
    _user: User<'a>,
}

struct User<'a>(&'a watch::Sender<usize>);

impl<'a> User<'a> {
    fn count(users: &'a watch::Sender<usize>) -> Self {
        users.send_modify(|users| *users += 1);
        Self(users)
    }
}

impl Drop for User<'_> {
    fn drop(&mut self) {
        self.0.send_modify(|users| *users = users.saturating_sub(1));
    }
}

impl<V> std::ops::Deref for InUse<'_, V> {
    type Target = OnceCell<V>;

    fn deref(&self) -> &OnceCell<V> {
        &self.cell
    }
}

impl<V> fmt::Debug for InUse<'_, V> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("InUse").finish_non_exhaustive()
    }
}

impl<K: Eq + Hash, V> Cells<K, V> {
    pub(super) fn new() -> Self {
        Self {
            open: Mutex::new(Some(HashMap::new())),
            users: watch::Sender::new(0),
        }
    }

    /// The cell of `key`, an empty one if it is new; of at most `max` keys.
    pub(super) fn get(&self, key: K, max: usize) -> Result<InUse<'_, V>, NoCell> {
        let mut open = self.open.lock();
        let cells = open.as_mut().ok_or(NoCell::Closed)?;
        let cell = match cells.get(&key) {
            Some(cell) => Arc::clone(cell),
            None if cells.len() >= max => return Err(NoCell::Full),
            None => Arc::clone(cells.entry(key).or_default()),
        };
        Ok(self.in_use(cell))
    }

    /// The cells that are open now.
    pub(super) fn open_cells(&self) -> Vec<InUse<'_, V>> {
        let open = self.open.lock();
        let cells = open.iter().flat_map(HashMap::values);
        cells.map(|cell| self.in_use(Arc::clone(cell))).collect()
    }

    fn in_use(&self, cell: Arc<OnceCell<V>>) -> InUse<'_, V> {
        InUse {
            cell,
            _user: User::count(&self.users),
        }
    }

    /// Takes everything out, for good, waiting at most `patience` for those who use it. Returns the values, and the keys of those that
    /// are still in use.
    pub(super) async fn close(&self, patience: Duration) -> (Vec<V>, Vec<K>) {
        let open = self.open.lock().take().unwrap_or_default();
        let mut users = self.users.subscribe();
        let unused = users.wait_for(|users| *users == 0);
        // What is in use after that is told from what is not below.
        drop(tokio::time::timeout(patience, unused).await);
        let mut values = Vec::new();
        let mut still_in_use = Vec::new();
        for (key, cell) in open {
            match Arc::into_inner(cell) {
                Some(cell) => values.extend(cell.into_inner()),
                None => still_in_use.push(key),
            }
        }
        (values, still_in_use)
    }
}

#[cfg(test)]
mod tests {
    use tokio::sync::oneshot;

    use super::*;

    const CLOSE_TIMEOUT: Duration = Duration::from_secs(5);

    #[tokio::test(start_paused = true)]
    async fn closing_waits_for_a_value_that_is_just_being_opened() {
        let cells = Cells::new();
        let (open, opened) = oneshot::channel();
        let opening = async {
            let cell = cells.get("a", 1).unwrap();
            *cell.get_or_init(|| async { opened.await.unwrap() }).await
        };
        let mut opening = Box::pin(opening);
        assert!(futures::poll!(&mut opening).is_pending());
        let mut closing = Box::pin(cells.close(CLOSE_TIMEOUT));
        assert!(futures::poll!(&mut closing).is_pending());
        open.send(7).unwrap();
        assert_eq!(opening.await, 7);
        assert_eq!(closing.await, (vec![7], vec![]));
    }

    #[tokio::test(start_paused = true)]
    async fn closing_names_what_is_in_use_for_too_long_and_takes_the_rest() {
        let cells = Cells::new();
        let in_use = cells.get("held", 9).unwrap();
        in_use.set(1).unwrap();
        cells.get("free", 9).unwrap().set(2).unwrap();
        let begin = tokio::time::Instant::now();
        assert_eq!(cells.close(CLOSE_TIMEOUT).await, (vec![2], vec!["held"]));
        assert_eq!(begin.elapsed(), CLOSE_TIMEOUT);
    }

    #[tokio::test(start_paused = true)]
    async fn closing_does_not_wait_for_nobody_and_nothing_is_opened_afterwards() {
        let cells: Cells<_, u32> = Cells::new();
        drop(cells.get("never opened", 9).unwrap());
        let begin = tokio::time::Instant::now();
        assert_eq!(cells.close(CLOSE_TIMEOUT).await, (vec![], vec![]));
        assert_eq!(begin.elapsed(), Duration::ZERO);
        assert_eq!(cells.get("a", 9).unwrap_err(), NoCell::Closed);
        assert_eq!(cells.open_cells().len(), 0);
    }

    #[tokio::test]
    async fn a_key_has_one_value_and_there_are_so_many_keys() {
        let cells = Cells::new();
        cells.get("a", 2).unwrap().set(1).unwrap();
        assert_eq!(cells.get("a", 2).unwrap().get(), Some(&1));
        cells.get("b", 2).unwrap().set(2).unwrap();
        assert_eq!(cells.get("c", 2).unwrap_err(), NoCell::Full);
        assert_eq!(cells.get("b", 2).unwrap().get(), Some(&2));
        assert_eq!(cells.open_cells().len(), 2);
    }
}
