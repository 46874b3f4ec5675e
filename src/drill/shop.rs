//! The shop: its ten services and what each does to answer.

/// A step of an operation.
#[derive(Clone, Copy, Debug)]
pub enum Step {
    /// Own work, in milliseconds at the median.
    Work(f64),
    /// Own work that has a span of its own.
    Inner(&'static str, f64),
    /// A statement to the database.
    Query(Query),
    /// A call of another service's operation, without which this one fails.
    Call(&'static str),
    /// A call whose failure is logged and made up for.
    Try(&'static str),
    /// A message to the queue, which the operation takes from there.
    Publish(&'static str),
}

/// A statement.
#[derive(Clone, Copy, Debug)]
pub struct Query {
    pub verb: &'static str,
    pub table: &'static str,
    pub text: &'static str,
    /// Milliseconds at the median.
    pub median_ms: f64,
}

/// How an operation is begun.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Entry {
    /// By an HTTP request: method and route.
    Http(&'static str, &'static str),
    /// By a message of the queue.
    Message,
    /// By the service's own schedule.
    Schedule,
}

/// What a service offers.
#[derive(Clone, Copy, Debug)]
pub struct Operation {
    pub service: &'static str,
    /// Name of its entry span.
    pub name: &'static str,
    pub entry: Entry,
    pub steps: &'static [Step],
    /// What is logged when all went well; `#` is a number, `@` a drawn word.
    pub line: &'static str,
}

/// A service of the shop.
#[derive(Clone, Copy, Debug)]
pub struct Service {
    pub name: &'static str,
    pub language: &'static str,
    pub version: &'static str,
    pub instances: usize,
    /// Size of its pool of database connections, 0 if it has none.
    pub pool: u32,
    pub host: &'static str,
}

const fn service(name: &'static str, language: &'static str, version: &'static str, pool: u32) -> Service {
    Service { name, language, version, instances: 2, pool, host: name }
}

/// The address of the database, which is also its name.
pub const DATABASE: &str = "postgres";
/// The address of the queue, which is also its name.
pub const QUEUE: &str = "rabbitmq";
/// The service that runs on a schedule.
pub const JOB: &str = "nightly-job";
/// The service that visitors meet.
pub const FRONTEND: &str = "frontend";

pub const SERVICES: [Service; 10] = [
    service("frontend", "nodejs", "3.12.0", 0),
    service("cart", "go", "1.8.3", 12),
    service("checkout", "go", "2.4.1", 0),
    service("payment", "java", "5.0.7", 16),
    service("shipping", "python", "0.9.14", 10),
    service("inventory", "java", "2.2.0", 20),
    service("recommendation", "python", "1.1.5", 0),
    Service { instances: 1, ..service(DATABASE, "", "17.2", 0) },
    Service { instances: 1, ..service(QUEUE, "", "4.0.5", 0) },
    Service { instances: 1, ..service(JOB, "python", "1.0.2", 0) },
];

const fn query(verb: &'static str, table: &'static str, text: &'static str, median_ms: f64) -> Step {
    Step::Query(Query { verb, table, text, median_ms })
}

const fn http(
    service: &'static str,
    name: &'static str,
    (method, route): (&'static str, &'static str),
    steps: &'static [Step],
    line: &'static str,
) -> Operation {
    Operation { service, name, entry: Entry::Http(method, route), steps, line }
}

pub const OPERATIONS: [Operation; 15] = [
    http(
        "frontend",
        "GET /",
        ("GET", "/"),
        &[Step::Work(3.0), Step::Try("GET /recommendations"), Step::Inner("render home", 4.0)],
        "rendered home for session @",
    ),
    http(
        "frontend",
        "GET /products/{sku}",
        ("GET", "/products/{sku}"),
        &[
            Step::Work(2.0),
            Step::Call("GET /stock/{sku}"),
            Step::Try("GET /recommendations"),
            Step::Inner("render product", 5.0),
        ],
        "rendered product SKU-# for session @",
    ),
    http(
        "frontend",
        "GET /cart",
        ("GET", "/cart"),
        &[Step::Work(2.0), Step::Call("GET /carts/{user}"), Step::Inner("render cart", 3.0)],
        "rendered cart for session @",
    ),
    http(
        "frontend",
        "POST /cart",
        ("POST", "/cart"),
        &[Step::Work(2.0), Step::Call("POST /carts/{user}/items")],
        "added SKU-# to cart of session @",
    ),
    http(
        "frontend",
        "POST /checkout",
        ("POST", "/checkout"),
        &[Step::Work(3.0), Step::Call("POST /orders"), Step::Inner("render receipt", 4.0)],
        "session @ placed order #",
    ),
    http(
        "cart",
        "GET /carts/{user}",
        ("GET", "/carts/{user}"),
        &[
            Step::Work(1.0),
            query("SELECT", "cart_items", "SELECT sku, quantity FROM cart_items WHERE user_id = $1", 2.5),
        ],
        "cart of user @ has # items",
    ),
    http(
        "cart",
        "POST /carts/{user}/items",
        ("POST", "/carts/{user}/items"),
        &[
            Step::Work(1.0),
            query(
                "INSERT",
                "cart_items",
                "INSERT INTO cart_items (user_id, sku, quantity) VALUES ($1, $2, $3)",
                4.0,
            ),
        ],
        "added SKU-# to cart of user @",
    ),
    http(
        "checkout",
        "POST /orders",
        ("POST", "/orders"),
        &[
            Step::Work(2.0),
            Step::Call("GET /carts/{user}"),
            Step::Call("POST /reservations"),
            Step::Call("POST /quotes"),
            Step::Call("POST /charges"),
            Step::Publish("process orders"),
            Step::Work(1.0),
        ],
        "order # placed by user @",
    ),
    http(
        "payment",
        "POST /charges",
        ("POST", "/charges"),
        &[
            Step::Work(2.0),
            query("SELECT", "cards", "SELECT token, limit_cents FROM cards WHERE user_id = $1", 3.0),
            Step::Inner("authorize card", 12.0),
            query("INSERT", "charges", "INSERT INTO charges (order_id, cents) VALUES ($1, $2)", 4.0),
        ],
        "charged # cents for order of user @",
    ),
    http(
        "shipping",
        "POST /quotes",
        ("POST", "/quotes"),
        &[
            Step::Work(2.0),
            query("SELECT", "rates", "SELECT cents FROM rates WHERE zone = $1 AND grams >= $2", 3.0),
        ],
        "quoted # cents to zone @",
    ),
    Operation {
        service: "shipping",
        name: "process orders",
        entry: Entry::Message,
        steps: &[
            Step::Work(5.0),
            query("INSERT", "shipments", "INSERT INTO shipments (order_id, zone) VALUES ($1, $2)", 5.0),
        ],
        line: "shipment # booked to zone @",
    },
    http(
        "inventory",
        "GET /stock/{sku}",
        ("GET", "/stock/{sku}"),
        &[Step::Work(1.0), query("SELECT", "stock", "SELECT quantity FROM stock WHERE sku = $1", 2.0)],
        "stock of SKU-# is ample",
    ),
    http(
        "inventory",
        "POST /reservations",
        ("POST", "/reservations"),
        &[
            Step::Work(2.0),
            query(
                "UPDATE",
                "stock",
                "UPDATE stock SET reserved = reserved + $2 WHERE sku = $1 AND quantity - reserved >= $2",
                5.0,
            ),
        ],
        "reserved SKU-# for user @",
    ),
    http(
        "recommendation",
        "GET /recommendations",
        ("GET", "/recommendations"),
        &[Step::Work(2.0), Step::Inner("rank products", 9.0)],
        "recommended # products to @",
    ),
    Operation {
        service: JOB,
        name: "nightly report",
        entry: Entry::Schedule,
        steps: &[
            Step::Work(5.0),
            query(
                "SELECT",
                "orders",
                "SELECT zone, count(*), sum(cents) FROM orders WHERE day = $1 GROUP BY zone",
                90.0,
            ),
            Step::Inner("write report", 60.0),
        ],
        line: "nightly report written: # orders",
    },
];

/// What visitors ask for, with weights.
pub const VISITS: [(&str, f64); 5] = [
    ("GET /", 0.22),
    ("GET /products/{sku}", 0.28),
    ("GET /cart", 0.12),
    ("POST /cart", 0.14),
    ("POST /checkout", 0.24),
];

/// The operation of this name. Names are unique in the shop.
#[must_use]
pub fn operation(name: &str) -> Option<(usize, &'static Operation)> {
    OPERATIONS.iter().enumerate().find(|(_, operation)| operation.name == name)
}

/// The place of the service of this name in `SERVICES`.
#[must_use]
pub fn service_number(name: &str) -> Option<usize> {
    SERVICES.iter().position(|service| service.name == name)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn all_that_is_named_exists_and_no_call_comes_back() {
        fn visit(name: &str, path: &mut Vec<String>) {
            assert!(!path.contains(&name.to_owned()), "{name} calls itself by {path:?}");
            let (_, operation) = operation(name).unwrap_or_else(|| panic!("no operation {name}"));
            assert!(service_number(operation.service).is_some(), "no service {}", operation.service);
            path.push(name.to_owned());
            for step in operation.steps {
                match step {
                    Step::Call(next) | Step::Try(next) | Step::Publish(next) => visit(next, path),
                    Step::Query(_) if operation.service != JOB => {
                        let service = SERVICES[service_number(operation.service).unwrap()];
                        assert!(service.pool > 0, "{} has no pool", service.name);
                    }
                    _ => {}
                }
            }
            path.pop();
        }
        for operation in &OPERATIONS {
            visit(operation.name, &mut Vec::new());
        }
        let share: f64 = VISITS.iter().map(|(_, share)| share).sum();
        assert!((share - 1.0).abs() < 1e-9);
    }
}
