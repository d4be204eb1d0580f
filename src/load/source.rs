//! What lives in the reactor of a run.

use std::time::Instant;

use super::conductor::Conductor;
use super::host::Host;
use super::pacer::Pacer;
use super::visitor::Visitor;
use crate::net::reactor::{Context, Next, Source};
use crate::proto::end::Side;
use crate::proto::event::Readiness;

/// Any source of a run.
pub enum LoadSource {
    /// The one that leads from stage to stage.
    Conductor(Box<Conductor>),
    /// The one that wakes others when a request is due.
    Pacer(Pacer),
    /// A connection.
    Visitor(Box<Visitor>),
}

impl Source for LoadSource {
    type Host = Host;

    fn start(&mut self, context: &mut Context<'_, Self>) -> Next {
        match self {
            Self::Conductor(conductor) => conductor.start(context),
            Self::Pacer(pacer) => pacer.start(context),
            Self::Visitor(visitor) => visitor.start(context),
        }
    }

    fn handle_readiness(&mut self, _: Side, readiness: Readiness) {
        if let Self::Visitor(visitor) = self {
            visitor.handle_readiness(readiness);
        }
    }

    fn run(&mut self, context: &mut Context<'_, Self>) -> Next {
        match self {
            Self::Conductor(conductor) => conductor.run(context),
            Self::Pacer(pacer) => pacer.run(context),
            Self::Visitor(visitor) => visitor.run(context),
        }
    }

    fn deadline(&self) -> Option<Instant> {
        match self {
            Self::Visitor(visitor) => visitor.deadline(),
            Self::Conductor(_) | Self::Pacer(_) => None,
        }
    }
}
