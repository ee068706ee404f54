//! What requests need of the outside beside the policy: opened when a policy needs it, kept fresh beside the requests.

use std::sync::Arc;
use std::time::Duration;

use crate::browser::{self, Browser};
use crate::clock::Clock;
use crate::config::{Config, RedisUrl, StoreUrl};
use crate::fetch::{Fetcher, Options};
use crate::issuer::Issuers;
use crate::live::Live;
use crate::login::hasher::{Bounds, Hasher};
use crate::login::{self, Login};
use crate::pipeline::{Inquiries, Services};
use crate::policy::set::PolicySet;
use crate::provider::{Oidc, Supabase};
use crate::random::Random;
use crate::store::revoked::RevokedList;
use crate::store::{OpenError, StoreError, Stores};
use crate::telemetry::audit::Audit;

/// How long after a failure a store is tried again.
const AGAIN: Duration = Duration::from_secs(1);

/// What services are made of.
#[derive(Clone, Debug)]
pub struct Outside {
    /// The store for what must not be lost.
    pub store: StoreUrl,
    /// What gateways share.
    pub redis: Option<RedisUrl>,
    /// How clients reach the gateway.
    pub public_url: Option<Box<str>>,
    /// Where security events are written.
    pub audit: Arc<Audit>,
    /// Where keys come from. Managed ones are kept in the store, once one is open.
    pub issuers: Arc<Issuers>,
    /// The time.
    pub clock: Arc<dyn Clock>,
    /// Random bytes.
    pub random: Arc<dyn Random>,
}

impl Outside {
    /// Nothing that is kept, and no log.
    pub fn without_store(clock: Arc<dyn Clock>, random: Arc<dyn Random>) -> Self {
        let store = Config::default().store;
        let issuers = Issuers::new(None, Arc::clone(&clock), Arc::clone(&random)).fetching(fetcher());
        let (audit, issuers) = (Arc::new(Audit::none()), Arc::new(issuers));
        Self { store, redis: None, public_url: None, audit, issuers, clock, random }
    }
}

/// What fetches documents of others: none where the system's certificates cannot be read. Then it is said, and whoever
/// needs such a document goes without.
pub fn fetcher() -> Option<Fetcher> {
    super::crypto::install();
    let fetcher = Fetcher::new(&Options::default());
    fetcher.inspect_err(|error| tracing::error!(%error, "nothing can be fetched from other servers")).ok()
}

/// Why services cannot start.
#[derive(Debug)]
pub enum ServiceError {
    /// The store cannot be opened.
    Open(OpenError),
    /// It opened, and cannot be read.
    Read(StoreError),
}

impl ServiceError {
    /// What to do about it, where that is known.
    pub fn help(&self) -> Option<&str> {
        match self {
            Self::Open(error) => Some(&error.help),
            Self::Read(_) => None,
        }
    }
}

impl std::fmt::Display for ServiceError {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Open(error) => error.fmt(f),
            Self::Read(error) => error.fmt(f),
        }
    }
}

impl std::error::Error for ServiceError {}

/// Opens stores, and keeps what is made of them up to date.
#[derive(Debug)]
pub struct Keeper {
    outside: Outside,
    policy: Arc<Live<PolicySet>>,
    live: Arc<Live<Services>>,
}

/// Stores with what works on them.
#[derive(Debug)]
struct Open {
    stores: Arc<Stores>,
    /// Whether they outlive the process.
    is_kept: bool,
    hasher: Hasher,
    revoked: Arc<RevokedList>,
}

impl Services {
    /// Keys of the policy alone, nothing revoked, nobody who can log in: for policies that need no store.
    pub fn without_store(outside: &Outside) -> Self {
        // Nobody writes to it, so nobody has to follow it.
        let stores = Stores { revocations: Vec::new(), ..Stores::memory() };
        Open::over(stores, outside, false).services(outside)
    }
}

impl Open {
    fn over(stores: Stores, outside: &Outside, is_kept: bool) -> Self {
        if is_kept {
            outside.issuers.keep_in(Arc::clone(&stores.keys));
        }
        let revoked = Arc::new(RevokedList::new(stores.revocations.clone()));
        Self {
            stores: Arc::new(stores),
            is_kept,
            hasher: Hasher::new(Bounds::default(), Arc::clone(&outside.random)),
            revoked,
        }
    }

    fn services(&self, outside: &Outside) -> Services {
        let fetcher = fetcher();
        let (supabase, oidc) = (Supabase::new(fetcher.clone()), Oidc::new(fetcher));
        let login = Login::new(login::Parts {
            stores: Arc::clone(&self.stores),
            revoked: Arc::clone(&self.revoked),
            hasher: self.hasher.clone(),
            issuers: outside.issuers.live(),
            supabase: supabase.clone(),
            clock: Arc::clone(&outside.clock),
            random: Arc::clone(&outside.random),
            audit: Arc::clone(&outside.audit),
        });
        let browser = Browser::new(browser::Parts {
            stores: Arc::clone(&self.stores),
            revoked: Arc::clone(&self.revoked),
            issuers: Arc::clone(&outside.issuers),
            supabase: supabase.clone(),
            oidc: oidc.clone(),
            clock: Arc::clone(&outside.clock),
            random: Arc::clone(&outside.random),
            audit: Arc::clone(&outside.audit),
        });
        Services {
            keys: outside.issuers.live(),
            browser: Arc::new(browser),
            supabase: supabase.clone(),
            issuers: Arc::clone(&outside.issuers),
            has_store: self.is_kept,
            revoked: Arc::clone(&self.revoked),
            login: Arc::new(login),
            inquiries: Inquiries::new(oidc, supabase, outside.issuers.metrics()),
            limits: self.stores.limits.clone(),
            public_url: outside.public_url.clone(),
            audit: Arc::clone(&outside.audit),
        }
    }

    /// Reads all that must be known before the first request.
    async fn read(&self, outside: &Outside, policy: &PolicySet) -> Result<(), StoreError> {
        self.revoked.load(outside.clock.now()).await?;
        outside.issuers.refresh(policy).await?;
        self.hasher.learn(&*self.stores.users).await
    }

    /// Keeps it fresh, for as long as it is polled.
    async fn keep(self, clock: Arc<dyn Clock>) {
        let follow = Arc::clone(&self.revoked).follow(Arc::clone(&clock));
        let learn = self.hasher.clone().run(Arc::clone(&self.stores.users));
        tokio::join!(follow, learn, self.stores.keep_clean(&*clock));
    }
}

impl Keeper {
    /// Opens what the live policy needs. Until a store is needed none is opened, and none is created.
    pub async fn start(
        outside: Outside,
        policy: Arc<Live<PolicySet>>,
    ) -> Result<(Arc<Live<Services>>, impl Future<Output = ()> + Send + 'static), ServiceError> {
        let (open, services) = if policy.snapshot().needs_store() || outside.redis.is_some() {
            let open = open(&outside, &policy.snapshot()).await?;
            let services = open.services(&outside);
            (Some(open), services)
        } else {
            (None, Services::without_store(&outside))
        };
        let live = Arc::new(Live::new(services));
        let keeper = Self { outside, policy, live: Arc::clone(&live) };
        Ok((live, keeper.run(open)))
    }

    async fn run(self, open: Option<Open>) {
        let keys = Arc::clone(&self.outside.issuers).run(Arc::clone(&self.policy));
        tokio::join!(keys, self.keep(open));
    }

    async fn keep(self, open: Option<Open>) {
        let open = match open {
            Some(open) if open.is_kept => open,
            Some(shared) => {
                // Redis alone, for limits: a policy may need the store later.
                let keep = shared.keep(Arc::clone(&self.outside.clock));
                tokio::select! {
                    open = self.open_when_needed() => open,
                    () = keep => return,
                }
            }
            None => self.open_when_needed().await,
        };
        open.keep(self.outside.clock).await;
    }

    /// Waits for a policy that needs a store, and opens it then, however often that fails.
    async fn open_when_needed(&self) -> Open {
        let mut changes = self.policy.watch();
        let mut said = false;
        loop {
            while !self.policy.snapshot().needs_store() {
                if changes.changed().await.is_err() {
                    std::future::pending::<()>().await;
                }
            }
            match open(&self.outside, &self.policy.snapshot()).await {
                // The policy may have changed again.
                Ok(open) if !open.is_kept => continue,
                Ok(open) => {
                    self.live.publish(open.services(&self.outside));
                    return open;
                }
                Err(error) if !said => {
                    tracing::error!(%error, "the policy needs a store that cannot be opened; logins are answered 503");
                    said = true;
                }
                Err(_) => {}
            }
            tokio::time::sleep(AGAIN).await;
        }
    }
}

async fn open(outside: &Outside, policy: &PolicySet) -> Result<Open, ServiceError> {
    let stores = match &outside.redis {
        redis if policy.needs_store() => Stores::open(&outside.store, redis.as_ref()).await,
        Some(redis) => Stores::memory().sharing(redis).await,
        None => Ok(Stores::memory()),
    };
    let stores = stores.map_err(ServiceError::Open)?;
    let open = Open::over(stores, outside, policy.needs_store());
    open.read(outside, policy).await.map_err(ServiceError::Read)?;
    Ok(open)
}
