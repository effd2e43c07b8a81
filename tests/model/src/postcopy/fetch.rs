//! The two sides of a connection: the handover's messages, then the fetching.

use super::{ATTEMPT, Broken, Connection, Down, PostCopy, Todo, Up, World};
use godwit_migrate::handover::{Ask, Boot, GuestAction, Past, Request, Tell};
use godwit_migrate::handover::{destination, source};

impl PostCopy {
    /// The source connects anew when it has something to ask or to give.
    pub(super) fn connect(&self, world: &mut World) {
        let giving = world.source.state == source::State::Moved
            && world.source.gives
            && world.source.has_memory;
        if !world.source.state.is_undecided() && !giving {
            return;
        }
        if let Some(old) = world.last() {
            old.source_has_it = false;
        }
        world.connections.push(Connection {
            source_has_it: true,
            destination_has_it: true,
            ..Connection::default()
        });
        match giving {
            true => world.say(Down::Request(Request {
                attempt: ATTEMPT,
                boot: Some(Boot(1)),
                ask: Ask::Commit,
            })),
            false => world.source_step(self, source::Input::AskAgain),
        }
    }

    pub(super) fn source_hears(&self, world: &mut World) {
        let Some(heard) = world.last().and_then(|it| it.up.pop_front()) else {
            return;
        };
        let moved = world.source.state == source::State::Moved;
        match heard {
            Up::Reply(reply) if moved && matches!(reply.tell, Tell::Gone { .. } | Tell::Unsure) => {
                // The boot that ran it is no more: what is here is stale.
                world.source.state = source::State::Lost;
                world.source.has_memory = false;
            }
            Up::Reply(reply) => world.source_step(self, source::Input::Reply(reply)),
            // An answer to who does not give is nonsense.
            Up::Fetch(_) | Up::Complete if !moved => {}
            Up::Fetch(pages) => match world.source.has_memory {
                true => world.say(Down::Fetched(pages)),
                // It has nothing after its restart, and says so.
                false if world.source_lost => {}
                false => world.wrong = Some("asked for what is freed"),
            },
            Up::Complete => world.source.has_memory = false,
        }
    }

    pub(super) fn destination_hears(&self, world: &mut World, nth: usize) {
        let connection = &mut world.connections[nth];
        // One message after the other is served.
        if !connection.destination_has_it || !connection.todo.is_empty() {
            return;
        }
        match connection.down.pop_front() {
            Some(Down::Request(request)) => self.asked(world, nth, request),
            Some(Down::Fetched(pages)) if connection.fetches => {
                world.destination.absent &= !pages;
                self.ask(world, nth);
            }
            Some(Down::Fetched(_)) | None => {}
        }
    }

    fn asked(&self, world: &mut World, nth: usize, request: Request) {
        let destination = &mut world.destination;
        let past = match destination.journal && request.boot != Some(destination.boot) {
            true => Past::Committed,
            false => Past::Never,
        };
        let input = destination::Input::Request(request);
        let was = destination.state;
        let (state, effects) = destination::step(ATTEMPT, destination.boot, past, was, input);
        destination.state = state;
        let todo = &mut world.connections[nth].todo;
        let begins = was != destination::State::Running && state == destination::State::Running;
        match effects.guest {
            Some(GuestAction::Run) => todo.extend([Todo::Journal, Todo::Run]),
            Some(GuestAction::Discard) => destination.has_it = false,
            Some(GuestAction::Pause | GuestAction::AllowStart | GuestAction::Compare) | None => {}
        }
        todo.extend(effects.send.map(Todo::Send));
        if begins {
            todo.push_back(Todo::Register);
        } else if effects
            .send
            .is_some_and(|reply| reply.tell == Tell::Running)
        {
            todo.push_back(Todo::FetchOn);
        }
    }

    pub(super) fn destination_works(&self, world: &mut World, nth: usize) {
        let destination = &mut world.destination;
        let connection = &mut world.connections[nth];
        match connection.todo.pop_front() {
            None => {}
            Some(Todo::Journal) => destination.journal = true,
            Some(Todo::Run) => {
                destination.runs = true;
                destination.has_run = true;
            }
            Some(Todo::Send(reply)) => {
                if connection.destination_has_it && connection.source_has_it {
                    connection.up.push_back(Up::Reply(reply));
                }
            }
            Some(Todo::Register) => {
                destination.registered = destination.absent != 0;
                self.fetch_by(world, nth);
            }
            Some(Todo::FetchOn) => self.fetch_by(world, nth),
        }
    }

    /// Fetches over this connection, and over no other any more.
    fn fetch_by(&self, world: &mut World, nth: usize) {
        let destination = &world.destination;
        let lacks = destination.has_it && destination.absent != 0;
        let careless = matches!(
            self.broken,
            Broken::SaysAllBeforeRegistered | Broken::AbsentForgotten
        );
        if !destination.registered {
            match lacks && !careless {
                // It is not ready: whoever gives asks again.
                true => world.connections[nth].destination_has_it = false,
                false => self.tell(world, nth, Up::Complete),
            }
            return;
        }
        for (other, connection) in world.connections.iter_mut().enumerate() {
            if connection.fetches && other != nth {
                connection.fetches = false;
                connection.destination_has_it = false;
            }
        }
        world.connections[nth].fetches = true;
        self.ask(world, nth);
    }

    /// Asks for the next page, or says that it has all.
    fn ask(&self, world: &mut World, nth: usize) {
        let absent = world.destination.absent;
        if absent == 0 {
            world.destination.registered = false;
            world.connections[nth].fetches = false;
            self.tell(world, nth, Up::Complete);
            return;
        }
        self.tell(world, nth, Up::Fetch(1 << absent.trailing_zeros()));
    }

    fn tell(&self, world: &mut World, nth: usize, what: Up) {
        let connection = &mut world.connections[nth];
        if connection.destination_has_it && connection.source_has_it {
            connection.up.push_back(what);
        }
    }
}
