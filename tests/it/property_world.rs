//! A random world on the real API server for `property.rs`: namespaces with objects of many kinds,
//! people (service accounts with real tokens), roles and bindings, all made from one seed.
//!
//! Nothing in it moves once it is made but the bindings: pods are held back by scheduling gates,
//! and their states are written by us. It binds nobody but its own people, so that no other test
//! notices.

use std::collections::BTreeSet;
use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};

use binnacle::kinds::{KINDS, KindDef, Resource, Source};
use futures::StreamExt as _;
use futures::future::join_all;
use http::Method;
use serde_json::{Value, json};

use crate::cluster::Cluster;
use crate::people::Person;
use crate::property_plants::plants;
use crate::property_truth::Client;

const NAMESPACES: usize = 12;
const PEOPLE: usize = 30;
const ROLES: usize = 36;
const CLUSTER_ROLES: usize = 12;
const BINDINGS: usize = 70;
/// Requests at once while the world is made.
const AT_ONCE: usize = 12;
const RBAC: &str = "/apis/rbac.authorization.k8s.io/v1";
const GROUP: &str = "rbac.authorization.k8s.io";
/// Kinds of this group come and go with other tests, which install and remove their definitions.
const FLEETING: &str = "gateway.networking.k8s.io";

/// splitmix64: small, the same everywhere, and good enough to throw dice.
pub struct Rng(u64);

impl Rng {
    /// The dice of one purpose: what another one throws does not change them.
    pub fn of(seed: u64, stream: u64) -> Self {
        let mut rng = Self(seed ^ stream.wrapping_mul(0xd605_bbb5_8c8a_bc03));
        rng.draw();
        rng
    }

    pub fn draw(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    pub fn below(&mut self, n: usize) -> usize {
        usize::try_from(self.draw() % n as u64).unwrap()
    }

    /// Whether something happens that does so in `percent` of all cases.
    pub fn chance(&mut self, percent: usize) -> bool {
        self.below(100) < percent
    }

    pub fn pick<'a, T>(&mut self, from: &'a [T]) -> &'a T {
        &from[self.below(from.len())]
    }
}

/// A kind of the table and where this cluster serves it.
#[derive(Clone, Copy)]
pub struct Served {
    pub kind: &'static KindDef,
    pub at: Resource,
}

impl Served {
    /// What a refusal calls it: `pods`, `deployments.apps`.
    pub fn called(&self) -> String {
        match self.at.group {
            "" => self.at.plural.to_owned(),
            group => format!("{}.{group}", self.at.plural),
        }
    }
}

pub struct Human {
    /// Position in [`World::namespaces`].
    home: usize,
    account: String,
    pub token: String,
}

/// An object to ask details of.
pub struct Object {
    pub served: Served,
    pub namespace: String,
    pub name: String,
}

pub struct Binding {
    path: String,
    /// The binding and the rules of its role, for people.
    shown: String,
    /// Positions in [`World::people`].
    who: Vec<usize>,
}

/// A change of rights that is planned.
pub enum Change {
    Add {
        collection: String,
        object: Value,
        binding: Binding,
    },
    /// Position in the list of bindings.
    Remove(usize),
}

struct Role {
    /// Position in [`World::namespaces`]; none for a cluster role.
    home: Option<usize>,
    name: String,
    rules: Value,
}

pub struct World {
    /// Value of the label `world`, and how names of cluster-scoped objects begin.
    pub prefix: String,
    pub namespaces: Vec<String>,
    pub people: Vec<Human>,
    pub kinds: Vec<Served>,
    pub objects: Vec<Object>,
    admin: String,
    roles: Vec<Role>,
    bindings: Mutex<Vec<Binding>>,
    serial: AtomicUsize,
}

/// Creates an object as admin and returns what the API server made of it.
pub async fn create(api: &Client, admin: &str, collection: &str, object: &Value) -> Value {
    let answer = api.send(Method::POST, admin, collection, &[], object.to_string()).await;
    assert_eq!(answer.status, 201, "creating in {collection}: {}\n{object}", answer.text());
    answer.json()
}

impl World {
    pub async fn make(cluster: &Cluster, api: &Client, seed: u64) -> World {
        let mut rng = Rng::of(seed, 1);
        let prefix = format!("rbac{:08x}", rng.draw() >> 32);
        let admin = cluster.token("admin").to_owned();
        let namespaces = join_all((0..NAMESPACES).map(|_| cluster.namespace("rbac"))).await;
        let planted = namespaces.iter().zip(2..).map(|(namespace, stream)| {
            plants(api, &admin, &prefix, namespace, Rng::of(seed, stream))
        });
        let people = (0..PEOPLE).map(|number| {
            let home = &namespaces[number % NAMESPACES];
            async move {
                let account = format!("p{number}");
                let token = Person::new(cluster, home, &account).await.token;
                Human { home: number % NAMESPACES, account, token }
            }
        });
        let (people, _) = tokio::join!(join_all(people), join_all(planted));
        for (path, object) in of_the_cluster(&prefix) {
            create(api, &admin, path, &object).await;
        }
        let mut world = World {
            prefix,
            namespaces,
            people,
            kinds: served(api, &admin).await,
            objects: Vec::new(),
            admin,
            roles: Vec::new(),
            bindings: Mutex::default(),
            serial: AtomicUsize::new(0),
        };
        world.give_rights(api, &mut rng).await;
        world.objects = world.catalogue(api).await;
        world
    }

    /// A kind of the world by its contract name; the joins read pods, events and replica sets.
    pub fn kind(&self, name: &str) -> Option<Served> {
        self.kinds.iter().find(|served| served.kind.name == name).copied()
    }

    /// Whether a row is one of this world.
    pub fn holds(&self, served: &Served, namespace: &str, name: &str) -> bool {
        match (served.at.namespaced, served.kind.name) {
            (true, _) => self.namespaces.iter().any(|own| own == namespace),
            (false, "namespace") => self.namespaces.iter().any(|own| own == name),
            (false, _) => name.starts_with(&self.prefix),
        }
    }

    /// What a person may do, for people who look into a failure.
    pub fn rules_of(&self, who: usize) -> String {
        let Human { home, account, .. } = &self.people[who];
        let mut text = format!("service account {account} of {}:\n", self.namespaces[*home]);
        for binding in self.bindings.lock().unwrap().iter().filter(|one| one.who.contains(&who)) {
            text += &format!("  {}\n", binding.shown);
        }
        text
    }

    /// A random binding to take away, or a new one; and whose rights that changes. One plan at a
    /// time: it holds until it is applied.
    pub fn plan(&self, rng: &mut Rng) -> (Change, Vec<usize>) {
        let bindings = self.bindings.lock().unwrap();
        if rng.chance(50) && bindings.len() > BINDINGS / 2 {
            let at = rng.below(bindings.len());
            return (Change::Remove(at), bindings[at].who.clone());
        }
        let (collection, object, binding) = self.binding(rng);
        let who = binding.who.clone();
        (Change::Add { collection, object, binding }, who)
    }

    pub async fn apply(&self, api: &Client, change: Change) {
        match change {
            Change::Add { collection, object, binding } => {
                create(api, &self.admin, &collection, &object).await;
                self.bindings.lock().unwrap().push(binding);
            }
            Change::Remove(at) => {
                let Binding { path, .. } = self.bindings.lock().unwrap().swap_remove(at);
                let answer = api.send(Method::DELETE, &self.admin, &path, &[], "").await;
                assert_eq!(answer.status, 200, "deleting {path}: {}", answer.text());
            }
        }
    }

    async fn give_rights(&mut self, api: &Client, rng: &mut Rng) {
        for number in 0..ROLES + CLUSTER_ROLES {
            let home = (number < ROLES).then_some(number % NAMESPACES);
            let rules: Vec<Value> = (0..1 + rng.below(3)).map(|_| self.rule(rng)).collect();
            let name = format!("{}-r{number}", self.prefix);
            self.roles.push(Role { home, name, rules: rules.into() });
        }
        let this: &Self = self;
        let roles = this.roles.iter().map(|role| {
            let (kind, collection) = match role.home {
                Some(home) => {
                    ("Role", format!("{RBAC}/namespaces/{}/roles", this.namespaces[home]))
                }
                None => ("ClusterRole", format!("{RBAC}/clusterroles")),
            };
            let object = json!({
                "apiVersion": format!("{GROUP}/v1"), "kind": kind, "rules": role.rules,
                "metadata": {"name": role.name, "labels": {"world": this.prefix}},
            });
            async move { create(api, &this.admin, &collection, &object).await }
        });
        let made = futures::stream::iter(roles).buffer_unordered(AT_ONCE);
        assert_eq!(made.count().await, ROLES + CLUSTER_ROLES);
        let planned: Vec<_> = (0..BINDINGS).map(|_| this.binding(rng)).collect();
        let bindings = planned.into_iter().map(|(collection, object, binding)| {
            this.apply(api, Change::Add { collection, object, binding })
        });
        futures::stream::iter(bindings).buffer_unordered(AT_ONCE).collect::<Vec<()>>().await;
    }

    /// One random rule: kinds that belong together with one missing, or anything at all.
    fn rule(&self, rng: &mut Rng) -> Value {
        const VERBS: [&[&str]; 8] = [
            &["get", "list", "watch"],
            &["get", "list", "watch"],
            &["get", "list"],
            &["list"],
            &["get"],
            &["watch", "create"],
            &["list", "delete"],
            &["*"],
        ];
        const TOGETHER: [&str; 6] =
            ["pods", "events", "replicasets", "deployments", "daemonsets", "secrets"];
        let verbs = *rng.pick(&VERBS);
        if rng.chance(35) {
            let missing = rng.below(TOGETHER.len());
            let kept = TOGETHER.iter().enumerate().filter(|(at, _)| *at != missing);
            let resources: Vec<&str> = kept.map(|(_, plural)| *plural).collect();
            return json!({"apiGroups": ["", "apps"], "resources": resources, "verbs": verbs});
        }
        let chosen: Vec<Served> = (0..1 + rng.below(5)).map(|_| *rng.pick(&self.kinds)).collect();
        let groups: BTreeSet<&str> = match rng.below(10) {
            0 => BTreeSet::from(["*"]),
            1 => BTreeSet::from(["apps"]),
            _ => chosen.iter().map(|served| served.at.group).collect(),
        };
        let plurals = chosen.iter().map(|served| served.at.plural);
        let resources: BTreeSet<String> = match rng.below(10) {
            0 => BTreeSet::from(["*".to_owned()]),
            // Rights on what is beneath a kind are none on the kind.
            1 => plurals.map(|plural| format!("{plural}/log")).collect(),
            2 => plurals.map(|plural| format!("{plural}/*")).collect(),
            3 => BTreeSet::from(["*/status".to_owned(), "pods/log".to_owned()]),
            _ => plurals.map(str::to_owned).collect(),
        };
        let mut rule = json!({"apiGroups": groups, "resources": resources, "verbs": verbs});
        if rng.chance(15) {
            rule["resourceNames"] = json!([*rng.pick(&["atlas-0", "birch-0", "idle"])]);
        }
        rule
    }

    /// A random binding of somebody to some role: its collection, itself, and what we note of it.
    fn binding(&self, rng: &mut Rng) -> (String, Value, Binding) {
        let role = rng.pick(&self.roles);
        let serial = self.serial.fetch_add(1, Ordering::Relaxed);
        let name = format!("{}-b{serial}", self.prefix);
        // A role's binding stands in its namespace, a cluster role's in any, or in none.
        let home = match role.home {
            Some(home) => Some(home),
            None if rng.chance(35) => None,
            None => Some(rng.below(NAMESPACES)),
        };
        let built_in = json!("built into Kubernetes");
        let (kind, role_name, rules) = match role.home {
            Some(_) => ("Role", role.name.as_str(), &role.rules),
            None if rng.chance(15) => ("ClusterRole", "view", &built_in),
            None => ("ClusterRole", role.name.as_str(), &role.rules),
        };
        let (subject, who) = self.subject(rng);
        let (bound, collection) = match home {
            Some(home) => {
                ("RoleBinding", format!("{RBAC}/namespaces/{}/rolebindings", self.namespaces[home]))
            }
            None => ("ClusterRoleBinding", format!("{RBAC}/clusterrolebindings")),
        };
        let path = format!("{collection}/{name}");
        let shown = format!("{path} of {subject} to {kind} {role_name}: {rules}");
        let object = json!({
            "apiVersion": format!("{GROUP}/v1"), "kind": bound,
            "metadata": {"name": name, "labels": {"world": self.prefix}},
            "roleRef": {"apiGroup": GROUP, "kind": kind, "name": role_name},
            "subjects": [subject],
        });
        (collection, object, Binding { path, shown, who })
    }

    /// A service account as such, by its user name, or by the group of its namespace.
    fn subject(&self, rng: &mut Rng) -> (Value, Vec<usize>) {
        let who = rng.below(self.people.len());
        let Human { home, account, .. } = &self.people[who];
        let namespace = &self.namespaces[*home];
        match rng.below(5) {
            0 => {
                let name = format!("system:serviceaccounts:{namespace}");
                let all = self.people.iter().enumerate();
                let all = all.filter(|(_, human)| human.home == *home).map(|(at, _)| at).collect();
                (json!({"apiGroup": GROUP, "kind": "Group", "name": name}), all)
            }
            1 => {
                let name = format!("system:serviceaccount:{namespace}:{account}");
                (json!({"apiGroup": GROUP, "kind": "User", "name": name}), vec![who])
            }
            _ => {
                let kind = "ServiceAccount";
                (json!({"kind": kind, "namespace": namespace, "name": account}), vec![who])
            }
        }
    }

    /// The objects of this world, and one other of each cluster-scoped kind, in a fixed order.
    async fn catalogue(&self, api: &Client) -> Vec<Object> {
        let lists = self.kinds.iter().map(|served| async move {
            let answer = api.get(&self.admin, &served.at.collection(None)).await;
            assert_eq!(answer.status, 200, "{}: {}", served.kind.name, answer.text());
            (*served, answer.json())
        });
        let lists: Vec<(Served, Value)> =
            futures::stream::iter(lists).buffered(AT_ONCE).collect().await;
        let mut objects = Vec::new();
        for (served, list) in lists {
            let mut others = usize::from(!served.at.namespaced);
            for item in list["items"].as_array().into_iter().flatten() {
                let text = |key: &str| item["metadata"][key].as_str().unwrap_or("").to_owned();
                let (namespace, name) = (text("namespace"), text("name"));
                let own = self.holds(&served, &namespace, &name);
                if own || others > 0 {
                    others -= usize::from(!own);
                    objects.push(Object { served, namespace, name });
                }
            }
        }
        objects.sort_by(|a, b| {
            let key = |object: &Object| {
                (object.served.kind.name, object.namespace.clone(), object.name.clone())
            };
            key(a).cmp(&key(b))
        });
        objects
    }
}

/// Objects without a namespace that disturb nobody.
fn of_the_cluster(prefix: &str) -> [(&'static str, Value); 2] {
    let metadata = json!({"name": format!("{prefix}-one"), "labels": {"world": prefix}});
    [
        (
            "/apis/scheduling.k8s.io/v1/priorityclasses",
            json!({"apiVersion": "scheduling.k8s.io/v1", "kind": "PriorityClass", "value": 1,
                   "metadata": metadata}),
        ),
        (
            "/apis/node.k8s.io/v1/runtimeclasses",
            json!({"apiVersion": "node.k8s.io/v1", "kind": "RuntimeClass", "handler": "none",
                   "metadata": metadata}),
        ),
    ]
}

/// The kinds that this cluster serves, each where it does; polled ones have no list of rows.
async fn served(api: &Client, admin: &str) -> Vec<Served> {
    let mut found = Vec::new();
    let lasting = |kind: &&KindDef| kind.resource.group != FLEETING;
    for kind in KINDS.iter().filter(|kind| kind.source != Source::Poll).filter(lasting) {
        for &version in [kind.resource.version].iter().chain(kind.older) {
            let at = Resource { version, ..kind.resource };
            let path = format!("{}?limit=1", at.collection(None));
            if api.get(admin, &path).await.status == 200 {
                found.push(Served { kind, at });
                break;
            }
        }
    }
    assert!(found.len() > 20, "the cluster serves {} kinds of the table alone", found.len());
    found
}
