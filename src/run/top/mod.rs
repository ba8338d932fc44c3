//! `wmrelay top`: what the daemon serves, live on a terminal.

mod draw;
mod sample;
mod screen;

use std::io::{self, IsTerminal as _, Write as _};
use std::time::Duration;

use tokio::signal::unix::{SignalKind, signal};
use tokio::time::{Instant, MissedTickBehavior, interval_at, sleep};

use super::operate::{Line, coloured};
use super::out::out;
use crate::args::TopArgs;
use draw::Page;
use sample::{Order, Sample};
use screen::{Key, Screen};

/// Time between the two looks of a table that is printed once.
const FIRST_LOOK: Duration = Duration::from_secs(1);

/// Shows it until told to quit; once where there is no terminal.
///
/// # Errors
/// No daemon answers, or not any more.
pub(super) fn top(args: &TopArgs) -> anyhow::Result<()> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    runtime.block_on(async {
        let line = Line::open(&args.daemon)?;
        let every = args.every.map_or(FIRST_LOOK, |seconds| Duration::from_secs(seconds.into()));
        let on_terminal = io::stdin().is_terminal() && io::stdout().is_terminal();
        match (args.daemon.json, args.once || !on_terminal) {
            // A program that reads on says how often.
            (true, is_once) => stream(&line, every, args.once || (is_once && args.every.is_none())).await,
            (false, true) => once(&line).await,
            (false, false) => live(&line, every).await,
        }
    })
}

/// Two looks, one table.
async fn once(line: &Line) -> anyhow::Result<()> {
    let (before, begin) = (look(line).await?, Instant::now());
    sleep(FIRST_LOOK).await;
    let (now, apart) = (look(line).await?, begin.elapsed());
    let rows = sample::rows(&before, &now, apart, Order::Rate);
    let page = Page { size: None, first: 0, order: Order::Rate, colours: coloured(&io::stdout()) };
    let text = draw::page(&now, &rows, page).join("\n");
    writeln!(out(), "{text}")?;
    Ok(())
}

/// A line of JSON for each look but the first.
async fn stream(line: &Line, every: Duration, once: bool) -> anyhow::Result<()> {
    let (mut before, mut begin) = (look(line).await?, Instant::now());
    loop {
        sleep(every).await;
        let (now, at) = (look(line).await?, Instant::now());
        let mut out = out();
        writeln!(out, "{}", sample::as_json(&before, &now, at - begin))?;
        out.flush()?;
        if once {
            return Ok(());
        }
        (before, begin) = (now, at);
    }
}

/// The table on a screen of its own.
async fn live(line: &Line, every: Duration) -> anyhow::Result<()> {
    let mut now = look(line).await?;
    let (mut before, mut begin, mut apart) = (now.clone(), Instant::now(), every);
    let mut resized = signal(SignalKind::window_change())?;
    let (mut ended, mut hung_up) = (signal(SignalKind::terminate())?, signal(SignalKind::hangup())?);
    // The second look soon, so that there are rates.
    let mut looks = interval_at(Instant::now() + every.min(FIRST_LOOK), every);
    looks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let (mut first, mut order) = (0_usize, Order::default());
    let colours = coloured(&io::stdout());
    let mut screen = Screen::open()?;
    // Keys and signals do not wait for a daemon that does not answer.
    let mut looking = None;
    loop {
        let size = screen.size();
        let rows = sample::rows(&before, &now, apart, order);
        first = first.min(draw::last_first(&now, &rows, size));
        screen.show(&draw::page(&now, &rows, Page { size: Some(size), first, order, colours }))?;
        tokio::select! {
            _ = looks.tick(), if looking.is_none() => looking = Some(Box::pin(look(line))),
            Some(looked) = end_of(&mut looking) => {
                looking = None;
                before = std::mem::replace(&mut now, looked?);
                let at = Instant::now();
                apart = at - begin;
                begin = at;
            }
            _ = resized.recv() => {}
            _ = ended.recv() => return Ok(()),
            _ = hung_up.recv() => return Ok(()),
            key = screen.key() => match key {
                Key::Quit => return Ok(()),
                Key::Up => first = first.saturating_sub(1),
                Key::Down => first += 1,
                Key::PageUp => first = first.saturating_sub(size.0 / 2),
                Key::PageDown => first += size.0 / 2,
                Key::Sort => order = order.next(),
            },
        }
    }
}

/// What a look saw, when it has; `None` at once where none is taken.
async fn end_of<T>(looking: &mut Option<impl Future<Output = T> + Unpin>) -> Option<T> {
    match looking {
        Some(look) => Some(look.await),
        None => None,
    }
}

async fn look(line: &Line) -> anyhow::Result<Sample> {
    Ok(Sample {
        status: line.get("/v1/status").await?,
        viewers: line.get("/v1/viewers").await?,
        sources: line.get("/v1/sources").await?,
    })
}
