//! Redis: what several gateways share and may forget (failed logins, rates), and a quick way for revocations.
//!
//! Each operation is one script, so that it happens as a whole, and each waits half a second at most. Counts and rates
//! take the time of the caller, as everything here does; only positions of revocations follow the server's clock, because
//! all gateways must agree on them. A message on a channel wakes those who wait for revocations; the sorted set is what
//! they then read, so a message that was lost costs a quarter of a second and nothing else.
//!
//! Revocations are as durable as Redis is told to be: `appendonly yes`, `appendfsync always`, `maxmemory-policy
//! noeviction`. They are kept in the SQL store as well.

use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use async_trait::async_trait;
use parking_lot::Mutex;
use redis::aio::{ConnectionManager, ConnectionManagerConfig};
use redis::{
    Client, FromRedisValue, IntoConnectionInfo, ProtocolVersion, PushInfo, PushKind, RedisResult, Script,
    ScriptInvocation,
};
use tokio::sync::Notify;

use crate::clock::Timestamp;
use crate::policy::set::Lockout;

use super::rules::DAY;
use super::{Attempt, Attempts, Cursor, Limits, OpenError, Rate, Revocation, Revocations, Revoked, StoreError};

/// How long one call may take.
const PATIENCE: Duration = Duration::from_millis(500);

/// How long a connection may take.
const OPENING: Duration = Duration::from_secs(3);

/// How many revocations are read, written or swept at once.
const PAGE: usize = 2000;

/// How far back a reader looks again, in microseconds: after a failover the clock of another server counts on.
const OVERLAP: i64 = 1_000_000;

const CHANNEL: &str = "portcullis:revoked";
/// Revocations by position, by end, and the position given out last. The braces keep them on one node of a cluster.
const BY_POSITION: &str = "portcullis:{revoked}:position";
const BY_END: &str = "portcullis:{revoked}:until";
const LAST: &str = "portcullis:{revoked}:last";

/// A connection to Redis that comes back by itself.
#[derive(Clone)]
pub struct Redis {
    client: Client,
    connection: Arc<Mutex<ConnectionManager>>,
    /// Whether somebody makes another connection.
    renewing: Arc<AtomicBool>,
    scripts: Arc<Scripts>,
    added: Arc<Notify>,
}

impl fmt::Debug for Redis {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Redis")
    }
}

struct Scripts {
    begin: Script,
    forgive: Script,
    clear: Script,
    take: Script,
    add: Script,
    since: Script,
    sweep: Script,
}

/// The same steps as `rules::Counter::begin`.
const BEGIN: &str = "
local key, now, after, within, lock, day =
  KEYS[1], tonumber(ARGV[1]), tonumber(ARGV[2]), tonumber(ARGV[3]), tonumber(ARGV[4]), tonumber(ARGV[5])
local stored = redis.call('HMGET', key, 'count', 'since', 'locked', 'locks', 'forget')
local count, since, locked, locks, forget =
  tonumber(stored[1] or 0), tonumber(stored[2] or 0), tonumber(stored[3] or 0), tonumber(stored[4] or 0), tonumber(stored[5] or 0)
if locked > now then return locked - now end
if forget <= now then count, since, locked, locks, forget = 0, 0, 0, 0, 0 end
if count == 0 or locked ~= 0 or since + within <= now then count, since, locked = 0, now, 0 end
count = count + 1
if count >= after then
  locked = now + math.min(lock * 2 ^ locks, math.max(day, lock))
  locks = locks + 1
end
local relevant = since + within
if locks > 0 then relevant = math.max(relevant, locked + day) end
forget = math.max(forget, relevant)
local text = function(number) return string.format('%.0f', number) end
redis.call('HSET', key, 'count', count, 'since', text(since), 'locked', text(locked), 'locks', locks, 'forget', text(forget))
redis.call('PEXPIRE', key, text(math.max(forget - now, 1)))
return -1
";

/// The same steps as `rules::Counter::forgive`.
const FORGIVE: &str = "
local key, now = KEYS[1], tonumber(ARGV[1])
local stored = redis.call('HMGET', key, 'count', 'locked', 'locks')
local count, locked, locks = tonumber(stored[1] or 0), tonumber(stored[2] or 0), tonumber(stored[3] or 0)
if count == 0 then return 0 end
if locked > now then locked, locks = 0, math.max(locks - 1, 0) end
redis.call('HSET', key, 'count', count - 1, 'locked', string.format('%.0f', locked), 'locks', locks)
return 1
";

/// GCRA in microseconds; the same steps as `rules::gcra`.
const TAKE: &str = "
local key, now, each, tolerance = KEYS[1], tonumber(ARGV[1]), tonumber(ARGV[2]), tonumber(ARGV[3])
local arrival = math.max(tonumber(redis.call('GET', key) or 0), now)
local early = arrival - now - tolerance
if early > 0 then return math.ceil(early) end
arrival = arrival + each
redis.call('SET', key, string.format('%.3f', arrival), 'PX', string.format('%.0f', math.ceil((arrival - now) / 1000) + 1))
return -1
";

/// Positions follow the server's time, so that readers see what is new even after all was lost.
const ADD: &str = "
local time = redis.call('TIME')
local position = math.max(tonumber(redis.call('GET', KEYS[3]) or 0), time[1] * 1000000 + time[2])
for at = 2, #ARGV, 2 do
  position = position + 1
  redis.call('ZADD', KEYS[1], string.format('%.0f', position), ARGV[at])
  redis.call('ZADD', KEYS[2], 'GT', ARGV[at + 1], ARGV[at])
end
redis.call('SET', KEYS[3], string.format('%.0f', position))
redis.call('PUBLISH', ARGV[1], string.format('%.0f', position))
return 1
";

/// What is new, with positions, and what was seen in the last second, without.
const SINCE: &str = "
local seen = redis.call('ZRANGEBYSCORE', KEYS[1], ARGV[2], ARGV[1])
local new = redis.call('ZRANGEBYSCORE', KEYS[1], '(' .. ARGV[1], '+inf', 'WITHSCORES', 'LIMIT', 0, ARGV[3])
local last = new[#new] or ''
local members = {}
for at = 1, #new, 2 do members[#members + 1] = new[at] end
return { last, seen, members }
";

const SWEEP: &str = "
local over = redis.call('ZRANGEBYSCORE', KEYS[2], '-inf', '(' .. ARGV[1], 'LIMIT', 0, ARGV[2])
for _, member in ipairs(over) do
  redis.call('ZREM', KEYS[1], member)
  redis.call('ZREM', KEYS[2], member)
end
return #over
";

impl Redis {
    /// Connects to a server.
    pub async fn open(url: &str) -> Result<Self, OpenError> {
        let help = "check that the server runs, and the host, port, user and password in the URL";
        let bad = |_| OpenError::new("it is not the URL of a Redis server", "`redis://HOST:PORT/DATABASE`");
        let info = url.into_connection_info().map_err(bad)?;
        let settings = info.redis_settings().clone().set_protocol(ProtocolVersion::RESP3);
        let client = Client::open(info.set_redis_settings(settings)).map_err(bad)?;
        let added = Arc::new(Notify::new());
        let no = |error: String| OpenError::new(format!("no connection to Redis: {error}"), help);
        let connecting = tokio::time::timeout(OPENING, connect(&client, &added));
        let connection = connecting
            .await
            .map_err(|_| no("no answer within 3 s".to_owned()))?
            .map_err(|error| no(error.to_string()))?;
        let scripts = Arc::new(Scripts {
            begin: Script::new(BEGIN),
            forgive: Script::new(FORGIVE),
            clear: Script::new("return redis.call('DEL', KEYS[1])"),
            take: Script::new(TAKE),
            add: Script::new(ADD),
            since: Script::new(SINCE),
            sweep: Script::new(SWEEP),
        });
        let (connection, renewing) = (Arc::new(Mutex::new(connection)), Arc::default());
        Ok(Self { client, connection, renewing, scripts, added })
    }

    /// Makes another connection where this one is beyond repair. It comes back by itself when it was lost, but not when
    /// the server said something else than Redis does while it was made (a proxy's error, too many clients, garbage).
    fn renew(&self) {
        if self.renewing.swap(true, Ordering::AcqRel) {
            return;
        }
        let this = self.clone();
        tokio::spawn(async move {
            let mut present = this.connection.lock().clone();
            // A server that answers has only refused the command.
            let ping = redis::cmd("PING");
            let answers = tokio::time::timeout(PATIENCE, ping.query_async::<String>(&mut present)).await;
            if !answers.is_ok_and(|answer| answer.is_ok_and(|pong| pong == "PONG"))
                && let Ok(Ok(connection)) = tokio::time::timeout(OPENING, connect(&this.client, &this.added)).await
            {
                *this.connection.lock() = connection;
            }
            this.renewing.store(false, Ordering::Release);
        });
    }

    async fn run<T: FromRedisValue>(&self, invocation: &ScriptInvocation<'_>) -> Result<T, StoreError> {
        let mut connection = self.connection.lock().clone();
        match tokio::time::timeout(PATIENCE, invocation.invoke_async(&mut connection)).await {
            Ok(Ok(answer)) => Ok(answer),
            Ok(Err(error)) => {
                if !error.is_io_error() {
                    self.renew();
                }
                Err(StoreError::Unavailable(format!("redis: {error}")))
            }
            Err(_) => Err(StoreError::Unavailable("redis: no answer within 500 ms".to_owned())),
        }
    }
}

/// Connects, and listens for revocations.
async fn connect(client: &Client, added: &Arc<Notify>) -> RedisResult<ConnectionManager> {
    let wake = Arc::clone(added);
    let config = ConnectionManagerConfig::new()
        .set_number_of_retries(1)
        .set_max_delay(Duration::from_millis(100))
        .set_connection_timeout(Some(PATIENCE))
        .set_response_timeout(Some(PATIENCE))
        .set_push_sender(move |push: PushInfo| {
            // After a gap somebody must look, too.
            if matches!(push.kind, PushKind::Message | PushKind::Subscribe) {
                wake.notify_one();
            }
            Ok::<(), std::convert::Infallible>(())
        })
        .set_automatic_resubscription();
    let mut connection = client.get_connection_manager_with_config(config).await?;
    if let Err(error) = connection.subscribe(CHANNEL).await {
        tracing::warn!(%error, "revocations are polled: no subscription to {CHANNEL}");
    }
    Ok(connection)
}

// === Attempts ===

fn attempts_key(key: &str) -> String {
    format!("portcullis:attempts:{key}")
}

fn millis(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}

#[async_trait]
impl Attempts for Redis {
    async fn begin(&self, key: &str, lockout: &Lockout, now: Timestamp) -> Result<Attempt, StoreError> {
        let mut begin = self.scripts.begin.key(attempts_key(key));
        begin
            .arg(now.as_millis())
            .arg(lockout.after)
            .arg(millis(lockout.within))
            .arg(millis(lockout.lock))
            .arg(millis(DAY));
        let left: i64 = self.run(&begin).await?;
        Ok(u64::try_from(left).map_or(Attempt::Open, |left| Attempt::Locked(Duration::from_millis(left))))
    }

    async fn forgive(&self, key: &str, now: Timestamp) -> Result<(), StoreError> {
        let mut forgive = self.scripts.forgive.key(attempts_key(key));
        self.run::<i64>(forgive.arg(now.as_millis())).await.map(drop)
    }

    async fn clear(&self, key: &str) -> Result<(), StoreError> {
        self.run::<i64>(&self.scripts.clear.key(attempts_key(key))).await.map(drop)
    }

    /// Redis forgets by itself.
    async fn sweep(&self, _now: Timestamp) -> Result<u64, StoreError> {
        Ok(0)
    }
}

// === Limits ===

#[async_trait]
impl Limits for Redis {
    async fn take(&self, key: &str, rate: Rate, now: Timestamp) -> Result<Option<Duration>, StoreError> {
        let each = rate.per.as_secs_f64() * 1e6 / f64::from(rate.count.max(1));
        let mut take = self.scripts.take.key(format!("portcullis:limit:{key}"));
        take.arg(now.as_millis().saturating_mul(1000)).arg(each).arg(each * f64::from(rate.burst.max(1) - 1));
        let wait: i64 = self.run(&take).await?;
        Ok(u64::try_from(wait).ok().map(Duration::from_micros))
    }
}

// === Revocations ===

/// A revocation as JSON: the same one is the same member.
fn write(revocation: &Revocation) -> String {
    let (kind, value, before) = revocation.revoked.encode();
    serde_json::json!([revocation.issuer, kind, value, before, revocation.until.as_millis()]).to_string()
}

fn read(text: &str) -> Result<Revocation, StoreError> {
    let corrupt = || StoreError::Corrupt("redis: a revocation".to_owned());
    let (issuer, kind, value, before, until): (String, String, String, Option<i64>, i64) =
        serde_json::from_str(text).map_err(|_| corrupt())?;
    let revoked = Revoked::decode(&kind, value, before).ok_or_else(corrupt)?;
    Ok(Revocation { issuer, revoked, until: Timestamp::from_millis(until) })
}

#[async_trait]
impl Revocations for Redis {
    async fn add(&self, revocations: &[Revocation], _now: Timestamp) -> Result<(), StoreError> {
        for chunk in revocations.chunks(PAGE) {
            let mut add = self.scripts.add.key(BY_POSITION);
            add.key(BY_END).key(LAST).arg(CHANNEL);
            for revocation in chunk {
                add.arg(write(revocation)).arg(revocation.until.as_millis());
            }
            self.run::<i64>(&add).await?;
        }
        Ok(())
    }

    async fn since(&self, cursor: &mut Cursor, now: Timestamp) -> Result<Vec<Revocation>, StoreError> {
        let mut since = self.scripts.since.key(BY_POSITION);
        since.arg(cursor.0).arg(cursor.0.saturating_sub(OVERLAP)).arg(PAGE);
        let (last, seen, new): (String, Vec<String>, Vec<String>) = self.run(&since).await?;
        let mut found = Vec::with_capacity(seen.len() + new.len());
        for member in seen.iter().chain(&new) {
            let revocation = read(member)?;
            if revocation.until > now {
                found.push(revocation);
            }
        }
        if !last.is_empty() {
            let position: f64 =
                last.parse().map_err(|_| StoreError::Corrupt("redis: the position of a revocation".to_owned()))?;
            cursor.0 = cursor.0.max(position as i64);
        }
        Ok(found)
    }

    async fn changed(&self) {
        self.added.notified().await;
    }

    async fn sweep(&self, now: Timestamp) -> Result<u64, StoreError> {
        let mut gone = 0;
        loop {
            let mut sweep = self.scripts.sweep.key(BY_POSITION);
            let step: u64 = self.run(sweep.key(BY_END).arg(now.as_millis()).arg(PAGE)).await?;
            gone += step;
            if step < PAGE as u64 {
                return Ok(gone);
            }
        }
    }
}
