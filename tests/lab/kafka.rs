//! Apache Kafka: one KRaft node.

use std::fmt::Write as _;
use std::time::Duration;

use rdkafka::consumer::{BaseConsumer, Consumer as _};
use rdkafka::message::Headers as _;
use rdkafka::{ClientConfig, Message as _, Offset, TopicPartitionList};

use super::proc::{Folder, Proc, Run, copy, free_port};
use super::{PATIENCE, root, wait_until};

/// A port on which a peer reaches the node: through something that can be cut.
#[derive(Clone, Copy, Debug)]
pub struct PeerDoor {
    /// Where the node listens.
    pub inner: u16,
    /// Where it says that it listens.
    pub outer: u16,
}

/// A record of a topic.
pub struct Held {
    /// Where it stands.
    pub offset: i64,
    /// Where it stood in the outbox that it was copied from, by its header.
    pub copied: Option<i64>,
    /// Its W3C trace context.
    pub trace: Option<String>,
    /// What it holds.
    pub payload: Vec<u8>,
}

/// Who may do what at a node.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Access {
    /// Everybody everything.
    Open,
    /// By SASL and access control lists. Each region's agent has its name for an account,
    /// which is given nothing at first.
    Listed,
}

/// Java's options: a node that starts soon and stays small, and never compiles its code well.
const LEAN: [&str; 6] = [
    "-Xms96m",
    "-Xmx256m",
    "-Xshare:auto",
    "-XX:TieredStopAtLevel=1",
    "-XX:+UseSerialGC",
    "-XX:-UsePerfData",
];

/// Those of Kafka's own start script.
const FIELD: [&str; 7] = [
    "-Xms1g",
    "-Xmx1g",
    "-server",
    "-XX:+UseG1GC",
    "-XX:MaxGCPauseMillis=20",
    "-XX:InitiatingHeapOccupancyPercent=35",
    "-XX:+ExplicitGCInvokesConcurrent",
];

/// The password of every account.
pub const PASSWORD: &str = "password-of-the-lab";
/// Whoever makes the lists.
const ADMIN: &str = "admin";

/// A node with its own data.
pub struct Kafka {
    /// The server process.
    pub proc: Proc,
    access: Access,
    run: Run,
    port: u16,
    folder: Folder,
}

impl Kafka {
    /// Starts one without topics and waits until it answers.
    pub async fn start(name: &str, doors: &[PeerDoor]) -> Self {
        let mut kafka = Self::begin(name, doors);
        kafka.ready().await;
        kafka
    }

    /// Starts one and does not wait.
    pub fn begin(name: &str, doors: &[PeerDoor]) -> Self {
        Self::begin_with(name, doors, Access::Open, Run::Lean)
    }

    /// The same, with access control, or as in the field.
    pub fn begin_with(name: &str, doors: &[PeerDoor], access: Access, run: Run) -> Self {
        let folder = Folder::new(&format!("kafka-{name}"));
        let data = folder.path().join("data");
        std::fs::create_dir_all(&data).unwrap();
        copy(&root().join(".run/kafka-data"), &data);
        let port = free_port();
        let properties = folder.path().join("server.properties");
        let text = settings((port, free_port()), doors, &data.display().to_string(), access);
        std::fs::write(&properties, text).unwrap();
        let classes = format!("{}/*", root().join(".run/kafka").display());
        let properties = properties.display().to_string();
        let program = ["-cp", &classes, "kafka.Kafka", &properties];
        let options: &[&str] = if run == Run::Lean { &LEAN } else { &FIELD };
        let args = options.iter().copied().chain(program).map(str::to_owned);
        let (java, args) = run.command("java", args);
        let log = folder.path().join("log");
        let proc = Proc::start(&format!("Kafka {name}"), &log, &java, args);
        Self { proc, access, run, port, folder }
    }

    /// Waits until it answers.
    pub async fn ready(&mut self) {
        let mut config = self.client();
        config.set("log_level", "0");
        let proc = &mut self.proc;
        wait_until("Kafka answers", PATIENCE, || {
            proc.expect_alive();
            let config = config.clone();
            async move {
                let ask = move || {
                    let client: BaseConsumer = config.create().unwrap();
                    client
                        .fetch_metadata(None, Duration::from_secs(5))
                        .is_ok_and(|metadata| !metadata.brokers().is_empty())
                };
                tokio::task::spawn_blocking(ask).await.unwrap()
            }
        })
        .await;
    }

    /// `kill -9`, then a start on the same data and ports.
    pub async fn crash(&mut self) {
        self.proc.kill();
        self.proc.again();
        self.ready().await;
    }

    /// All that a topic of one partition holds.
    pub fn records(&self, topic: &str) -> Vec<Held> {
        let mut config = self.client();
        config.set("group.id", "test");
        let consumer: BaseConsumer = config.create().unwrap();
        let mut list = TopicPartitionList::new();
        list.add_partition_offset(topic, 0, Offset::Beginning).unwrap();
        consumer.assign(&list).unwrap();
        let (low, high) = consumer.fetch_watermarks(topic, 0, PATIENCE).unwrap();
        let mut records = Vec::new();
        let mut next = low;
        while next < high {
            let message = consumer.poll(PATIENCE).unwrap().unwrap();
            let header = |name: &str| -> Option<String> {
                let headers = message.headers().into_iter().flat_map(|headers| headers.iter());
                let mut held = headers.filter(|header| header.key == name);
                let value = held.next().map(|header| header.value.unwrap().to_vec());
                assert!(held.next().is_none(), "two headers {name}");
                value.map(|value| String::from_utf8(value).unwrap())
            };
            let payload = message.payload().unwrap().to_vec();
            records.push(Held {
                offset: message.offset(),
                copied: header("causeway-offset").map(|offset| offset.parse().unwrap()),
                trace: header("traceparent"),
                payload,
            });
            next = message.offset() + 1;
        }
        records
    }

    /// A client's settings, of one who may do everything.
    fn client(&self) -> ClientConfig {
        let mut config = ClientConfig::new();
        config.set("bootstrap.servers", self.brokers());
        if self.access == Access::Listed {
            for (name, value) in login(ADMIN) {
                config.set(name, value);
            }
            config.set("sasl.password", PASSWORD);
        }
        config
    }

    /// Gives an account operations on resources, or takes them away: the arguments of
    /// Kafka's own command.
    pub async fn lists(&self, account: &str, arguments: &[&str]) {
        let file = self.folder.path().join("admin.properties");
        let [protocol, mechanism, _] = login(ADMIN).map(|(name, value)| format!("{name}={value}"));
        let jaas = jaas("");
        std::fs::write(&file, format!("{protocol}\n{mechanism}\nsasl.jaas.config={jaas}\n"))
            .unwrap();
        let output = tokio::process::Command::new("java")
            .args(["-Xmx64m", "-XX:TieredStopAtLevel=1", "-cp"])
            .arg(format!("{}/*", root().join(".run/kafka").display()))
            .args(["kafka.admin.AclCommand", "--bootstrap-server", &self.brokers()])
            .args(["--command-config", &file.display().to_string(), "--force"])
            .args(["--allow-principal", &format!("User:{account}")])
            .args(arguments)
            .output()
            .await
            .unwrap();
        let said = [output.stdout, output.stderr].concat();
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&said));
    }

    /// Whether it asks who one is.
    pub const fn access(&self) -> Access {
        self.access
    }

    /// How it runs.
    pub const fn run(&self) -> Run {
        self.run
    }

    /// Bootstrap address for the node's own region.
    pub fn brokers(&self) -> String {
        format!("127.0.0.1:{}", self.port)
    }
}

/// What a client sets to log in, beside the password.
pub fn login(account: &str) -> [(&'static str, String); 3] {
    [
        ("security.protocol", "SASL_PLAINTEXT".to_owned()),
        ("sasl.mechanism", "PLAIN".to_owned()),
        ("sasl.username", account.to_owned()),
    ]
}

/// How the one who may do everything logs in; a node adds the accounts that it knows.
fn jaas(accounts: &str) -> String {
    format!(
        "org.apache.kafka.common.security.plain.PlainLoginModule required \
         username=\"{ADMIN}\" password=\"{PASSWORD}\"{accounts};"
    )
}

/// The controller's listener, which no client reaches, knows nobody by name.
fn lists(doors: usize) -> String {
    let listeners = (0..doors).map(|n| format!("peer{n}")).chain(["local".to_owned()]);
    let accounts = (0..=doors).map(super::region::names).chain([ADMIN.to_owned()]);
    let accounts: String =
        accounts.map(|account| format!(" user_{account}=\"{PASSWORD}\"")).collect();
    let jaas = jaas(&accounts);
    let logins =
        listeners.map(|name| format!("listener.name.{name}.plain.sasl.jaas.config={jaas}\n"));
    format!(
        "authorizer.class.name=org.apache.kafka.metadata.authorizer.StandardAuthorizer\n\
         super.users=User:{ADMIN};User:ANONYMOUS\n\
         sasl.enabled.mechanisms=PLAIN\n\
         sasl.mechanism.inter.broker.protocol=PLAIN\n{}",
        logins.collect::<String>()
    )
}

fn settings(
    (port, controller): (u16, u16),
    doors: &[PeerDoor],
    data: &str,
    access: Access,
) -> String {
    let (protocol, lists) = match access {
        Access::Open => ("PLAINTEXT", String::new()),
        Access::Listed => ("SASL_PLAINTEXT", lists(doors.len())),
    };
    let mut listeners = format!("LOCAL://127.0.0.1:{port},CONTROLLER://127.0.0.1:{controller}");
    let mut advertised = format!("LOCAL://127.0.0.1:{port}");
    let mut protocols = format!("LOCAL:{protocol},CONTROLLER:PLAINTEXT");
    for (n, door) in doors.iter().enumerate() {
        write!(listeners, ",PEER{n}://127.0.0.1:{}", door.inner).unwrap();
        write!(advertised, ",PEER{n}://127.0.0.1:{}", door.outer).unwrap();
        write!(protocols, ",PEER{n}:{protocol}").unwrap();
    }
    format!(
        "process.roles=broker,controller\n\
         node.id=1\n\
         controller.quorum.voters=1@127.0.0.1:{controller}\n\
         controller.listener.names=CONTROLLER\n\
         inter.broker.listener.name=LOCAL\n\
         listeners={listeners}\n\
         advertised.listeners={advertised}\n\
         listener.security.protocol.map={protocols}\n\
         log.dirs={data}\n\
         auto.create.topics.enable=false\n\
         num.network.threads=2\n\
         num.io.threads=2\n\
         num.recovery.threads.per.data.dir=1\n\
         background.threads=2\n\
         log.cleaner.threads=1\n\
         log.cleaner.dedupe.buffer.size=4194304\n\
         message.max.bytes=17825792\n\
         socket.request.max.bytes=33554432\n\
         offsets.topic.num.partitions=1\n\
         offsets.topic.replication.factor=1\n\
         transaction.state.log.num.partitions=1\n\
         transaction.state.log.replication.factor=1\n\
         transaction.state.log.min.isr=1\n\
         group.initial.rebalance.delay.ms=0\n\
         broker.heartbeat.interval.ms=300\n\
         broker.session.timeout.ms=3000\n\
         controller.quorum.election.timeout.ms=300\n\
         initial.broker.registration.timeout.ms=60000\n\
         {lists}"
    )
}
