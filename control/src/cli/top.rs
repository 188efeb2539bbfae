//! `selvedge top`: the status, live.

use std::path::Path;
use std::time::Duration;

use ratatui::crossterm::event::{self, Event, KeyCode, KeyEventKind, KeyModifiers};
use ratatui::layout::{Constraint, Layout};
use ratatui::style::{Color, Style, Stylize};
use ratatui::text::Line;
use ratatui::widgets::{Block, Paragraph, Row, Sparkline, Table};
use ratatui::{DefaultTerminal, Frame};

use super::Done;
use super::paint::age;
use crate::api::{Status, client};
use crate::model::InstanceState;

/// Between two looks at the daemon.
const REFRESH: Duration = Duration::from_secs(1);

pub(super) async fn run(socket: &Path) -> Done {
    // Asked once before the screen is taken, so that a plain error stays readable.
    let first = client::status(socket).await.map_err(|e| e.to_string())?;
    let mut terminal = ratatui::try_init().map_err(|e| format!("this terminal cannot be drawn on: {e}"))?;
    let done = live(socket, &mut terminal, first).await;
    ratatui::restore();
    done
}

async fn live(socket: &Path, terminal: &mut DefaultTerminal, mut status: Status) -> Done {
    let mut problem = None;
    loop {
        terminal.draw(|frame| draw(frame, &status, problem.as_deref())).map_err(|e| format!("draw: {e}"))?;
        if event::poll(REFRESH).map_err(|e| format!("keyboard: {e}"))?
            && let Event::Key(key) = event::read().map_err(|e| format!("keyboard: {e}"))?
            && key.kind == KeyEventKind::Press
            && (matches!(key.code, KeyCode::Char('q') | KeyCode::Esc)
                || key.code == KeyCode::Char('c') && key.modifiers.contains(KeyModifiers::CONTROL))
        {
            return Ok(());
        }
        match client::status(socket).await {
            Ok(fresh) => (status, problem) = (fresh, None),
            Err(error) => problem = Some(error.to_string()),
        }
    }
}

fn draw(frame: &mut Frame<'_>, status: &Status, problem: Option<&str>) {
    let services = u16::try_from(status.services.len()).unwrap_or(u16::MAX).min(8);
    let [head, service_area, chart, instance_area] = Layout::vertical([
        Constraint::Length(3),
        Constraint::Length(services + 3),
        Constraint::Length(7),
        Constraint::Min(4),
    ])
    .areas(frame.area());
    frame.render_widget(heading(status, problem), head);
    frame.render_widget(services_table(status), service_area);
    draw_load(frame, status, chart);
    frame.render_widget(instances_table(status), instance_area);
}

fn heading<'a>(status: &'a Status, problem: Option<&'a str>) -> Paragraph<'a> {
    let modes: Vec<String> = status.interfaces.iter().map(|i| format!("{} {}", i.interface, i.mode)).collect();
    let xdp = if modes.is_empty() { "none".to_owned() } else { modes.join(", ") };
    let answered = crate::datapath::answered(&status.verdicts);
    let line = format!(
        "up {}   XDP {xdp}   answered in kernel {answered}   generation {}",
        age(status.uptime_s * 1000),
        status.generation
    );
    let second = problem.map_or_else(Line::default, |p| Line::from(p.to_owned()).red());
    Paragraph::new(vec![Line::from(line), second])
        .block(Block::new().title(format!("selvedge {} (q ends)", status.node).bold()))
}

fn services_table(status: &Status) -> Table<'_> {
    let rows = status.services.iter().map(|(name, s)| {
        let forecast = s.forecast.as_ref().map_or("-".to_owned(), |f| format!("{:.1}", f.mean));
        Row::new([
            name.to_string(),
            format!("{}/{}", s.serving, s.wanted),
            s.queries.to_string(),
            s.answered_in_kernel.to_string(),
            s.answered_by_daemon.to_string(),
            forecast,
        ])
    });
    let widths = [
        Constraint::Length(20),
        Constraint::Length(8),
        Constraint::Length(12),
        Constraint::Length(12),
        Constraint::Length(12),
        Constraint::Length(10),
    ];
    Table::new(rows, widths)
        .header(
            Row::new(["SERVICE", "SERVING", "QUERIES", "KERNEL", "DAEMON", "FORECAST"])
                .style(Style::new().fg(Color::DarkGray)),
        )
        .block(Block::bordered().title("services"))
}

fn draw_load(frame: &mut Frame<'_>, status: &Status, area: ratatui::layout::Rect) {
    let Some((name, service)) = status.services.iter().next() else { return };
    let load: Vec<u64> = service.history.iter().map(|w| w.observed.unwrap_or(0.0) as u64).collect();
    let width = usize::from(area.width.saturating_sub(2));
    let newest = &load[load.len().saturating_sub(width)..];
    let title = format!("{name}: requests per window, newest right");
    frame.render_widget(Sparkline::default().data(newest).block(Block::bordered().title(title)), area);
}

fn instances_table(status: &Status) -> Table<'_> {
    let rows = status.services.values().flat_map(|s| &s.instances).map(|i| {
        let record = &i.report.instance;
        let colour = match record.state {
            InstanceState::Serving => Color::Green,
            InstanceState::Failed => Color::Red,
            _ => Color::Yellow,
        };
        let address = record.addresses.v4.map_or("-".to_owned(), |a| a.to_string());
        let probe = i.report.last_probe.as_ref().and_then(|p| p.took_ms);
        Row::new([
            record.id.to_string(),
            record.service.to_string(),
            record.state.label().to_owned(),
            age(status.at.millis_since(record.since)),
            address,
            format!("{:.0} %", i.report.share * 100.0),
            probe.map_or("-".to_owned(), |ms| format!("{ms:.1} ms")),
            i.packets_to.map_or("-".to_owned(), |n| n.to_string()),
        ])
        .style(Style::new().fg(colour))
    });
    let widths = [10, 20, 10, 7, 16, 7, 10, 12].map(Constraint::Length);
    Table::new(rows, widths)
        .header(
            Row::new(["INSTANCE", "SERVICE", "STATE", "SINCE", "ADDRESS", "SHARE", "PROBE", "PACKETS"])
                .style(Style::new().fg(Color::DarkGray)),
        )
        .block(Block::bordered().title("instances"))
}
