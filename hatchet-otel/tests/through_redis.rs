//! A trace that goes through Redis, from a client to two workers with telemetry of their own.

#[path = "../../hatchet-backend-redis/tests/support/server.rs"]
mod server;
#[path = "support/spans.rs"]
mod spans;

use hatchet::{Hatchet, prelude::*};

use crate::{
    server::Server,
    spans::{Spans, Spoken as _},
};

#[workflow(name = "root")]
#[derive(Default)]
struct Root;

#[workflow]
impl Root {
    #[step]
    async fn begin(&self, ctx: &StepContext, input: u32) -> StepResult<usize> {
        let one = ctx.spawn::<Child>(input).await?;
        let many = ctx.spawn_all::<Child>(0..100).await?;
        one.result().await?;
        Ok(many.gather().await?.len())
    }
}

#[workflow(name = "child", queue = "children")]
#[derive(Default)]
struct Child;

#[workflow]
impl Child {
    #[step]
    async fn work(&self, _ctx: &StepContext, input: u32) -> StepResult<u32> {
        Ok(input)
    }
}

/// As another process has it: a connection, telemetry and an exporter of its own.
async fn connect(server: &Server) -> (Spans, Hatchet) {
    let spans = Spans::new();
    let hatchet = Hatchet::connect(&server.url()).await.unwrap().interceptor(spans.telemetry());
    (spans, hatchet)
}

#[tokio::test(flavor = "multi_thread")]
async fn a_trace_is_the_same_at_the_caller_and_on_two_workers() {
    let server = Server::start(&[]);
    let (at_roots, roots) = connect(&server).await;
    let (at_children, children) = connect(&server).await;
    let (at_caller, caller) = connect(&server).await;
    let roots = roots.worker().label("roots").only_registered().register(Root).start().await.unwrap();
    let children = children.worker().label("children").only_registered().register(Child).start().await.unwrap();

    let run = at_caller.within("caller", async { caller.start::<Root>(7).await.unwrap() }).await;
    assert_eq!(run.result().await.unwrap(), 100);
    roots.shutdown().await.unwrap();
    children.shutdown().await.unwrap();
    caller.close().await;

    let (begins, sent) = (at_caller.one("caller"), at_caller.one("send root"));
    assert_eq!(at_caller.names().len(), 2);
    let step = at_roots.one("process root/begin");
    assert!(sent.is_child_of(&begins) && step.is_child_of(&sent));
    assert_eq!(step.text("hatchet.worker"), "roots");

    let sent = at_roots.named("send child");
    let (near, far): (Vec<_>, Vec<_>) = sent.iter().partition(|sent| sent.trace() == begins.trace());
    assert_eq!((near.len(), far.len()), (1, 2));
    assert!(near[0].is_child_of(&step));
    assert!(far.iter().all(|sent| sent.links_to(&step.span_context)));
    let worked = at_children.named("process child/work");
    assert_eq!(worked.len(), 101);
    assert_eq!(worked.iter().filter(|span| span.is_child_of(near[0])).count(), 1);
    assert_eq!(worked.iter().filter(|span| far.iter().any(|sent| span.is_child_of(sent))).count(), 100);
    for span in worked {
        assert_eq!(span.text("hatchet.root_run"), run.id().to_string());
        assert_eq!((span.text("hatchet.worker"), span.text("hatchet.queue")), ("children".into(), "children".into()));
    }
}
