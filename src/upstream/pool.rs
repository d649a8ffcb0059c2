//! Connections that wait for their next request.
//!
//! Called by `dial` (take, evict), by a response's end (give back) and by the sweep. Last in, first out for each endpoint:
//! the connection that is least likely to have been closed goes first, and the others grow old and go.
//! Generic over what is kept so that it is tested without sockets. Bounded for each address and by age; the bound on all
//! connections together is `permits`.

use std::net::IpAddr;
use std::sync::Arc;

use hashbrown::HashMap;

use super::endpoint::Endpoint;

struct Idle<C> {
    conn: C,
    ip: IpAddr,
    since_ms: u64,
}

/// The idle connections of one shard.
pub(super) struct IdlePool<C> {
    idle_max: usize,
    keepalive_ms: u64,
    len: usize,
    /// For each endpoint, oldest first.
    idle: HashMap<Arc<Endpoint>, Vec<Idle<C>>>,
}

impl<C> IdlePool<C> {
    /// At most `idle_max` connections for each address, none older than `keepalive_ms`.
    pub fn new(idle_max: usize, keepalive_ms: u64) -> Self {
        Self {
            idle_max,
            keepalive_ms,
            len: 0,
            idle: HashMap::new(),
        }
    }

    pub fn len(&self) -> usize {
        self.len
    }

    /// Keeps `conn`; what has to go for it, itself perhaps, comes back to be closed.
    pub fn put(&mut self, endpoint: &Arc<Endpoint>, ip: IpAddr, conn: C, now_ms: u64) -> Option<C> {
        if self.idle_max == 0 || self.keepalive_ms == 0 {
            return Some(conn);
        }
        let list = self.idle.entry(Arc::clone(endpoint)).or_default();
        let same = list.iter().filter(|idle| idle.ip == ip).count();
        let oldest = list
            .iter()
            .position(|idle| idle.ip == ip)
            .filter(|_| same >= self.idle_max);
        let gone = oldest.map(|at| list.remove(at).conn);
        list.push(Idle {
            conn,
            ip,
            since_ms: now_ms,
        });
        self.len += usize::from(gone.is_none());
        gone
    }

    /// The connection used last that has been idle for less than `age_ms`.
    pub fn take(&mut self, endpoint: &Arc<Endpoint>, age_ms: u64, now_ms: u64) -> Option<C> {
        let list = self.idle.get_mut(endpoint)?;
        let limit_ms = age_ms.min(self.keepalive_ms);
        list.pop_if(|last| now_ms.saturating_sub(last.since_ms) < limit_ms)
            .map(|idle| {
                self.len -= 1;
                idle.conn
            })
    }

    /// The connection that has been idle for the longest time, to make room.
    pub fn take_oldest(&mut self) -> Option<C> {
        let lists = self.idle.values_mut().filter(|list| !list.is_empty());
        let list = lists.min_by_key(|list| list[0].since_ms)?;
        self.len -= 1;
        Some(list.remove(0).conn)
    }

    /// Everything that is too old or not `alive` any more, to be closed.
    pub fn take_dead(&mut self, now_ms: u64, mut alive: impl FnMut(&mut C) -> bool) -> Vec<C> {
        let keepalive_ms = self.keepalive_ms;
        let mut dead = Vec::new();
        for list in self.idle.values_mut() {
            let is_dead = |idle: &mut Idle<C>| {
                now_ms.saturating_sub(idle.since_ms) >= keepalive_ms || !alive(&mut idle.conn)
            };
            dead.extend(list.extract_if(.., is_dead).map(|idle| idle.conn));
        }
        self.idle.retain(|_, list| !list.is_empty());
        self.len -= dead.len();
        dead
    }

    /// The idle connections to one address, which has begun to rest.
    pub fn take_address(&mut self, endpoint: &Arc<Endpoint>, ip: IpAddr) -> Vec<C> {
        let Some(list) = self.idle.get_mut(endpoint) else {
            return Vec::new();
        };
        let taken: Vec<C> = list
            .extract_if(.., |idle| idle.ip == ip)
            .map(|idle| idle.conn)
            .collect();
        self.len -= taken.len();
        taken
    }

    /// Everything.
    pub fn take_all(&mut self) -> Vec<C> {
        self.len = 0;
        self.idle
            .drain()
            .flat_map(|(_, list)| list)
            .map(|idle| idle.conn)
            .collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const AGE: u64 = u64::MAX;

    fn ip(last: u8) -> IpAddr {
        IpAddr::from([10, 0, 0, last])
    }

    fn pool() -> (IdlePool<u32>, Arc<Endpoint>) {
        (IdlePool::new(2, 100), Endpoint::new(false, "a", 80))
    }

    #[test]
    fn the_last_one_in_is_the_first_one_out() {
        let (mut pool, endpoint) = pool();
        assert_eq!(pool.put(&endpoint, ip(1), 1, 0), None);
        assert_eq!(pool.put(&endpoint, ip(2), 2, 1), None);
        assert_eq!(
            pool.take(&Endpoint::new(true, "a", 80), AGE, 2),
            None,
            "another endpoint"
        );
        assert_eq!(pool.take(&endpoint, AGE, 2), Some(2));
        assert_eq!(pool.take(&endpoint, AGE, 2), Some(1));
        assert_eq!((pool.take(&endpoint, AGE, 2), pool.len()), (None, 0));
    }

    #[test]
    fn the_oldest_of_an_address_makes_room() {
        let (mut pool, endpoint) = pool();
        for conn in 1..=2 {
            assert_eq!(pool.put(&endpoint, ip(1), conn, 0), None);
        }
        assert_eq!(pool.put(&endpoint, ip(2), 9, 0), None);
        assert_eq!(pool.put(&endpoint, ip(1), 3, 0), Some(1));
        assert_eq!(pool.len(), 3);
        assert_eq!(pool.take_address(&endpoint, ip(1)), [2, 3]);
        assert_eq!(pool.take_all(), [9]);
        assert_eq!(pool.len(), 0);
    }

    #[test]
    fn old_and_dead_ones_go() {
        let (mut pool, endpoint) = pool();
        pool.put(&endpoint, ip(1), 1, 0);
        pool.put(&endpoint, ip(1), 2, 50);
        pool.put(&endpoint, ip(2), 3, 60);
        assert_eq!(
            pool.take(&endpoint, 10, 70),
            None,
            "too old for this request"
        );
        assert_eq!(pool.take_dead(100, |conn| *conn != 3), [1, 3]);
        assert_eq!(pool.take(&endpoint, AGE, 150), None, "too old for any");
        assert_eq!(pool.take_oldest(), Some(2));
        assert_eq!((pool.take_oldest(), pool.len()), (None, 0));
    }

    #[test]
    fn nothing_is_kept_where_the_settings_say_so() {
        let endpoint = Endpoint::new(false, "a", 80);
        assert_eq!(IdlePool::new(0, 100).put(&endpoint, ip(1), 1, 0), Some(1));
        assert_eq!(IdlePool::new(9, 0).put(&endpoint, ip(1), 1, 0), Some(1));
    }
}
