//! One round: a time of trouble, and what is done to whom in it. Then there is [peace](crate::peace).

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use tokio::time::Instant;

use crate::cluster::Cluster;
use crate::excuses::Excuses;
use crate::protocol::OfIndex;
use crate::proxy::{Moment, Proxy};
use crate::random::Random;
use crate::schema::INDEXES;
use crate::supervisor::Supervisor;
use crate::tally::{Group, Result, Tally};
use crate::truth;
use crate::watcher::Watcher;
use crate::weather::Weather;
use crate::wire::exchange;
use crate::workload::{self, Gate, Plan};

pub(crate) struct World {
    pub(crate) cluster: Arc<Cluster>,
    /// Where the application connects.
    pub(crate) database: String,
    pub(crate) search: SocketAddr,
    pub(crate) proxy: Proxy,
    pub(crate) supervisor: Supervisor,
    pub(crate) excuses: Arc<Excuses>,
    pub(crate) watcher: Arc<Watcher>,
    pub(crate) gate: Gate,
    pub(crate) random: Random,
    pub(crate) tally: Arc<Tally>,
}

/// What a round may do besides killing the engine. What has every index seeded again would hide what else went wrong: so
/// there are rounds without it.
#[derive(Debug)]
struct Rules {
    seconds: u64,
    servers: bool,
    slots: bool,
    indexes: bool,
    reindexes: bool,
    verifies: bool,
    weather: Weather,
    plan: Plan,
}

impl Rules {
    fn draw(random: &mut Random) -> Self {
        Self {
            seconds: 20 + random.below(70),
            servers: random.percent(50),
            slots: random.percent(60),
            indexes: random.percent(25),
            reindexes: random.percent(60),
            verifies: random.percent(60),
            weather: Weather::draw(random),
            plan: Plan::draw(random),
        }
    }
}

impl World {
    /// Returns what is wrong after it. It is no longer than this.
    pub(crate) async fn round(&mut self, number: u64, longest: Duration) -> Result<Vec<String>> {
        let rules = Rules::draw(&mut self.random);
        self.tally.note(format!("round {number}: {rules:?}"));
        self.proxy.set(rules.weather.clone());
        {
            let gate = self.gate.clone();
            let mut plan = gate.write().await;
            if self.random.percent(50) {
                workload::fill(&self.database).await?;
            }
            *plan = rules.plan.clone();
        }
        let end = Instant::now() + Duration::from_secs(rules.seconds).min(longest);
        while Instant::now() < end {
            // Most engines live for some seconds, some for a moment.
            let lives = [200, 2_000, 6_000, 12_000][self.random.below(4) as usize];
            let lives = Duration::from_millis(self.random.below(lives));
            self.supervisor.mind(lives).await?;
            self.trouble(&rules).await?;
            if self.random.percent(10) {
                self.idle().await?;
            }
        }
        self.settle_and_compare().await
    }

    async fn trouble(&mut self, rules: &Rules) -> Result<()> {
        let kind = self.random.below(24);
        self.tally.note(format!("trouble {kind}"));
        match kind {
            0 | 1 if rules.servers => self.restart_server().await,
            2 if rules.servers => self.cut_connections(),
            3 | 4 if rules.slots => self.drop_slot().await,
            5 if rules.indexes => self.remove_index().await,
            6..9 if rules.reindexes => self.ask(OfIndex::Reindex).await,
            9..11 if rules.verifies => self.ask(OfIndex::Verify).await,
            11 => {
                self.supervisor.drain().await?;
                self.supervisor.start()
            }
            12..18 => self.kill_at_a_moment().await,
            _ => self.kill().await,
        }
    }

    async fn kill(&mut self) -> Result<()> {
        self.supervisor.kill().await?;
        let away = [10, 300, 300, 3_000][self.random.below(4) as usize];
        tokio::time::sleep(Duration::from_millis(self.random.below(away))).await;
        self.supervisor.start()
    }

    /// Kills the engine while a request of its own is under way, on this side of the server's doing it or on that.
    async fn kill_at_a_moment(&mut self) -> Result<()> {
        let moment = if self.random.percent(50) { Moment::Before } else { Moment::After };
        let bulk = self.random.percent(70);
        let mut sprung = self.proxy.trap(bulk, moment, self.random.below(6));
        if self.supervisor.mind_until(&mut sprung, Duration::from_secs(5)).await?.is_some() {
            self.tally.add(Group::Trouble, "kills in the middle of a request", 1);
        }
        self.kill().await
    }

    /// Of the database: cleanly, which waits for the engine, or as if it had crashed.
    async fn restart_server(&mut self) -> Result<()> {
        let clean = self.random.percent(50);
        let excused = self.excuses.begin_stop();
        let cluster = self.cluster.clone();
        tokio::task::spawn_blocking(move || match clean {
            true => cluster.down_within("INT", Duration::from_secs(3)),
            false => cluster.down("QUIT"),
        })
        .await?;
        let what = if clean { "fast server stops" } else { "immediate server stops" };
        self.tally.add(Group::Trouble, what, 1);
        let away = [100, 4_000][self.random.below(2) as usize];
        self.supervisor.mind(Duration::from_millis(self.random.below(away))).await?;
        let cluster = self.cluster.clone();
        tokio::task::spawn_blocking(move || cluster.up()).await?;
        excused.into_iter().for_each(|index| self.excuses.end(index));
        Ok(())
    }

    fn cut_connections(&self) -> Result<()> {
        let sql = "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE usename = 'search'";
        self.cluster.psql("postgres", sql)?;
        self.tally.add(Group::Trouble, "times all connections cut", 1);
        Ok(())
    }

    /// The position is lost, and what is changed from now on until there is another one: under an engine that runs, or
    /// while there is none.
    async fn drop_slot(&mut self) -> Result<()> {
        let running = self.random.percent(50);
        if !running {
            self.supervisor.kill().await?;
        }
        let before = self.slots()?;
        let dropped = "DO $$ DECLARE slot record; BEGIN
            FOR i IN 1..300 LOOP
                FOR slot IN SELECT slot_name, active_pid FROM pg_replication_slots WHERE slot_name LIKE 'syncline%' LOOP
                    IF slot.active_pid IS NOT NULL THEN PERFORM pg_terminate_backend(slot.active_pid); END IF;
                    BEGIN
                        PERFORM pg_drop_replication_slot(slot.slot_name);
                        RETURN;
                    EXCEPTION WHEN object_in_use OR undefined_object THEN NULL;
                    END;
                END LOOP;
                PERFORM pg_sleep(0.01);
            END LOOP; END $$";
        self.cluster.psql("shop", dropped)?;
        let after = self.slots()?;
        let gone = before.iter().filter(|slot| !after.contains(slot)).count();
        self.tally.add(Group::Trouble, "slots dropped", gone as u64);
        if !running {
            tokio::time::sleep(Duration::from_millis(self.random.below(2_000))).await;
        }
        self.supervisor.start()
    }

    pub(crate) fn slots(&self) -> Result<Vec<String>> {
        let sql =
            "SELECT slot_name FROM pg_replication_slots WHERE slot_name LIKE 'syncline%' AND NOT temporary";
        Ok(self.cluster.psql("postgres", sql)?.lines().map(str::to_owned).collect())
    }

    /// As somebody would by hand: what stands behind the name of an index is gone.
    async fn remove_index(&mut self) -> Result<()> {
        self.supervisor.kill().await?;
        let index = INDEXES[self.random.below(3) as usize];
        if let Some(physical) = truth::behind(self.search, index).await?.first() {
            self.excuses.begin(index, false);
            let gone = exchange(self.search, "DELETE", &format!("/{physical}"), "").await?;
            self.excuses.end(index);
            if gone.status == 200 {
                self.tally.add(Group::Trouble, "indexes removed by hand", 1);
            }
        }
        self.supervisor.start()
    }

    /// Asks for it beside everything else, and does not wait.
    async fn ask(&mut self, what: OfIndex) -> Result<()> {
        let index = INDEXES[self.random.below(3) as usize];
        self.supervisor.ask(what, index).await.map(drop)
    }

    /// Nobody writes for a while.
    async fn idle(&mut self) -> Result<()> {
        let gate = self.gate.clone();
        let _closed = gate.write().await;
        self.tally.add(Group::Work, "idle phases", 1);
        self.supervisor.mind(Duration::from_millis(500 + self.random.below(3_000))).await
    }
}
