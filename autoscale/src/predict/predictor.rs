//! A service's predictor: models on one history, mixed, with quantiles from their own errors, and the judgement
//! whether it may be trusted.

use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::change::{Change, Detector};
use super::conformal::interpolated;
use super::track::{Pending, Skill, Track};
use super::{Expert, Forecast, Model, PredictorKind, season};

/// Of the stored form.
const VERSION: u32 = 3;
/// Windows kept for estimation: most, and by how many more before the oldest are dropped.
const MEMORY: usize = 6144;
const SLACK: usize = 1024;
/// Seasons that parameters are estimated from, and the bounds of that in windows.
const FIT_SEASONS: usize = 28;
const FIT_BOUNDS: (usize, usize) = (600, 2016);
/// Longer seasons that parameters are estimated from.
const FIT_LONGER: usize = 6;
/// Most windows of a back-test.
const BACK_TEST: usize = 168;
/// Windows before the first fit.
const FIRST_FIT: usize = 12;
/// Windows before a forecast is believed, and forecasts that have to be scored.
const LEAST_HISTORY: usize = 30;
const LEAST_SCORED: u64 = 20;
/// A window with more than this times the most that was ever seen teaches no more than that.
const SPIKE: f64 = 3.0;
/// No counter of a window comes to more; such a number is a mistake. Its square is still far from overflow.
pub(crate) const MOST_COUNTED: f64 = 1e15;
/// Levels that forecasts tell, beside the target's and those around it.
const LEVELS: [f64; 4] = [0.05, 0.5, 0.95, 0.99];
/// Errors that quantiles rest on, the newest ones.
const ERRORS: usize = 576;

/// What a predictor is told.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct Settings {
    /// Its models.
    pub kind: PredictorKind,
    /// Windows per season; found in the history where none is given.
    pub season: Option<usize>,
    /// Length of a window in seconds, where it is known: for seasons of the calendar.
    pub window_s: Option<f64>,
    /// Windows ahead that decisions look, 1 or more.
    pub horizon: usize,
    /// Share of windows that shall not exceed the upper quantile.
    pub level: f64,
}

impl Default for Settings {
    fn default() -> Self {
        Self { kind: PredictorKind::Select, season: None, window_s: None, horizon: 2, level: 0.9 }
    }
}

/// Why a forecast may lower what runs, or why not.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum Trust {
    /// It may.
    Earned,
    /// Too little was seen.
    TooYoung,
    /// In the back-test the naive forecast was as good.
    NoBetterThanNaive,
    /// More windows exceed its quantiles than they claim.
    CoverageBroken,
}

impl Trust {
    /// Short fixed name: metric label and JSON value.
    #[must_use]
    pub const fn label(self) -> &'static str {
        match self {
            Self::Earned => "earned",
            Self::TooYoung => "too_young",
            Self::NoBetterThanNaive => "no_better_than_naive",
            Self::CoverageBroken => "coverage_broken",
        }
    }
}

/// A predictor with all that it knows. Its serialised form is its state.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Predictor {
    version: u32,
    settings: Settings,
    /// Counted windows, gaps filled, oldest first.
    history: Vec<f64>,
    /// Windows seen, and the age of the next fit and the next look for seasons.
    age: usize,
    next_fit: usize,
    next_look: usize,
    seasons: [usize; 2],
    experts: Vec<Expert>,
    /// By horizon, from 1 on.
    tracks: Vec<Track>,
    detector: Detector,
    /// The last change point: its age and kind.
    change: Option<(usize, Change)>,
}

impl Predictor {
    /// A predictor that has seen nothing.
    #[must_use]
    pub fn new(settings: Settings) -> Self {
        let settings = Settings { horizon: settings.horizon.max(1), ..settings };
        let seasons = [settings.season.unwrap_or(0), 0];
        let mut new = Self {
            version: VERSION,
            settings,
            history: Vec::new(),
            age: 0,
            next_fit: FIRST_FIT,
            next_look: 2 * FIRST_FIT,
            seasons,
            experts: settings.kind.experts(seasons, &[]),
            tracks: Vec::new(),
            detector: Detector::default(),
            change: None,
        };
        new.forget_tracks();
        new
    }

    /// What it was told.
    #[must_use]
    pub const fn settings(&self) -> &Settings {
        &self.settings
    }

    /// The season and the longer one, in windows; 0 where there is none.
    #[must_use]
    pub const fn seasons(&self) -> [usize; 2] {
        self.seasons
    }

    /// The last change point: windows ago, and what moved.
    #[must_use]
    pub fn last_change(&self) -> Option<(usize, Change)> {
        self.change.map(|(age, change)| (self.age - age, change))
    }

    fn forget_tracks(&mut self) {
        let best_only = self.settings.kind == PredictorKind::Best;
        self.tracks = (1..=self.settings.horizon).map(|h| Track::new(h, self.experts.len(), best_only)).collect();
    }

    /// Takes one closed window, in order. A window that was not counted, or counted to something that is no number
    /// of requests, tells that time went by and not that nothing was asked.
    pub fn observe(&mut self, requests: Option<f64>) {
        let counted = requests.filter(|r| (0.0..=MOST_COUNTED).contains(r));
        let value = match counted {
            Some(value) => self.tamed(value),
            None if self.history.is_empty() => return,
            None => self.point(1).map_or(0.0, |f| f.max(0.0)),
        };
        self.step(value, counted.is_some());
    }

    /// One absurd window must not be what everything is estimated from.
    fn tamed(&self, value: f64) -> f64 {
        if !self.settings.kind.is_estimated() || self.history.len() < LEAST_HISTORY {
            return value;
        }
        let most = self.history.iter().fold(0.0f64, |a, b| a.max(*b));
        if most > 0.0 { value.min(SPIKE * most) } else { value }
    }

    fn step(&mut self, value: f64, counted: bool) {
        for track in &mut self.tracks {
            let Some(due) = track.take_due().filter(|_| counted) else { continue };
            track.learn(&due, value, ERRORS);
            if track.horizon == 1
                && let Some(change) = self.detector.observe(value - due.mixed)
            {
                self.change = Some((self.age, change));
            }
        }
        if self.change.is_some_and(|(at, _)| at == self.age) {
            for track in &mut self.tracks {
                track.cut();
            }
            self.next_fit = self.next_fit.min(self.age + 2 * self.seasons[0].max(FIRST_FIT));
        }
        self.age += 1;
        if self.history.len() >= self.memory() + SLACK.min(self.memory()) {
            self.history.drain(..self.history.len() - self.memory());
        }
        self.history.push(value);
        for expert in &mut self.experts {
            expert.observe(&self.history);
        }
        self.look_ahead();
    }

    /// Windows that are kept.
    fn memory(&self) -> usize {
        if self.settings.kind.is_estimated() || self.settings.kind.wants_season() { MEMORY } else { 8 }
    }

    /// Forecasts from here, to be scored when their windows come.
    fn look_ahead(&mut self) {
        let Some(naive) = self.history.last().copied() else { return };
        let horizon = self.settings.horizon;
        let sound = |path: &Vec<f64>| path.iter().all(|f| f.is_finite());
        let paths: Vec<Option<Vec<f64>>> =
            self.experts.iter().map(|e| e.path(&self.history, horizon).filter(sound)).collect();
        for (h, track) in self.tracks.iter_mut().enumerate() {
            let forecasts: Vec<Option<f64>> = paths.iter().map(|p| p.as_ref().map(|p| p[h])).collect();
            let mixed = track.mix(&forecasts).unwrap_or(naive);
            let upper = track.errors.quantiles(mixed, &[self.settings.level]).map(|q| q[0]);
            track.pending.push_back(Pending { forecasts, mixed, upper, naive });
        }
    }

    /// Whether [`Predictor::maintain`] has something to do.
    #[must_use]
    pub fn is_due(&self) -> bool {
        (self.settings.kind.is_estimated() && self.age >= self.next_fit) || self.looks()
    }

    fn looks(&self) -> bool {
        self.settings.kind.wants_season() && self.age >= self.next_look
    }

    /// Looks for seasons and estimates parameters, where it is time. This is what takes long: a caller with many
    /// services spreads it.
    pub fn maintain(&mut self) {
        if self.looks() {
            self.next_look = self.age + (self.age / 2).clamp(FIRST_FIT, FIT_BOUNDS.1);
            let found = match self.settings.season {
                None => season::find(&self.history, self.settings.window_s),
                Some(first) => [first, season::longer(&self.history, first)],
            };
            // A season that was not seen this time may have been drowned by a change.
            let better = found != self.seasons && (found[0] > 0 || self.seasons[0] == 0);
            if better
                || (self.settings.kind.is_many() && self.experts.iter().all(|e| e.path(&self.history, 1).is_none()))
            {
                self.seasons = found;
                self.rebuild();
                return;
            }
        }
        if self.settings.kind.is_estimated() && self.age >= self.next_fit {
            self.fit();
        }
    }

    /// New models for the seasons, tested on the newest part of the history that they were not fitted on.
    fn rebuild(&mut self) {
        let test = (self.history.len() / 3).min(BACK_TEST);
        let tail = self.history.split_off(self.history.len() - test);
        self.experts = self.settings.kind.experts(self.seasons, &self.history);
        self.forget_tracks();
        // Models that keep a state of their own see the history as it was.
        for t in 1..=self.history.len() {
            for expert in &mut self.experts {
                expert.observe(&self.history[..t]);
            }
        }
        self.fit();
        self.age -= test;
        for value in tail {
            self.step(value, true);
        }
        self.fit();
    }

    /// Windows that parameters are estimated from.
    fn fit_window(&self) -> usize {
        let [first, longer] = self.seasons;
        let whole = (FIT_SEASONS * first).max(FIT_LONGER * longer).clamp(FIT_BOUNDS.0, FIT_BOUNDS.1);
        match self.change {
            // What was before a change is of another kind, but a few seasons are needed.
            Some((age, _)) => whole.min((self.age - age).max(8 * first.max(FIRST_FIT))),
            _ => whole,
        }
    }

    fn fit(&mut self) {
        let window = self.fit_window().min(self.history.len());
        let start = self.history.len() - window;
        for expert in &mut self.experts {
            expert.fit(&self.history[start..], &self.history);
        }
        let usual = self.seasons[0].max(window / 8);
        self.next_fit = self.age + (self.age / 4).clamp(6, usual.max(6));
        for track in &mut self.tracks {
            track.pending.pop_back();
        }
        self.look_ahead();
    }

    /// The expected requests of the window `horizon` windows ahead (1 is the next) as the models give them: may be
    /// negative. `None` before anything was counted.
    #[must_use]
    pub fn point(&self, horizon: usize) -> Option<f64> {
        self.at(horizon).map(|(_, _, mixed)| mixed)
    }

    /// The track and the models' forecasts for a horizon; beyond what is tracked, those of the longest tracked.
    fn at(&self, horizon: usize) -> Option<(&Track, Vec<Option<f64>>, f64)> {
        let track = self.tracks.get(horizon.max(1) - 1).or(self.tracks.last())?;
        if horizon <= self.settings.horizon {
            let newest = track.pending.back()?;
            return Some((track, newest.forecasts.clone(), newest.mixed));
        }
        let last =
            |e: &Expert| e.path(&self.history, horizon).and_then(|p| p.last().copied()).filter(|f| f.is_finite());
        let forecasts: Vec<Option<f64>> = self.experts.iter().map(last).collect();
        let mixed = track.mix(&forecasts).or(self.history.last().copied())?;
        Some((track, forecasts, mixed))
    }

    /// What to expect of the window `horizon` windows ahead.
    #[must_use]
    pub fn forecast(&self, horizon: usize) -> Option<Forecast> {
        self.forecast_for(horizon, self.settings.level)
    }

    /// The same for decisions at another level than the target's.
    pub(crate) fn forecast_for(&self, horizon: usize, level: f64) -> Option<Forecast> {
        let (track, _, mixed) = self.at(horizon)?;
        let mut levels: Vec<f64> = LEVELS.to_vec();
        levels.push(level);
        levels.extend(Forecast::around(level));
        levels.sort_unstable_by(f64::total_cmp);
        levels.dedup();
        let quantiles = track.errors.quantiles(mixed, &levels).unwrap_or_default();
        Some(Forecast {
            mean: mixed.max(0.0),
            quantiles: levels.into_iter().zip(quantiles).map(|(level, q)| (level, q.max(0.0))).collect(),
            model: self.settings.kind.to_string(),
        })
    }

    /// Requests that the window `horizon` windows ahead exceeds with probability 1 − `level`; `None` while there are
    /// too few errors to tell.
    #[must_use]
    pub fn quantile(&self, horizon: usize, level: f64) -> Option<f64> {
        let (track, _, mixed) = self.at(horizon)?;
        track.errors.quantiles(mixed, &[level]).map(|q| q[0].max(0.0))
    }

    /// How good the forecasts of a horizon were lately.
    #[must_use]
    pub fn skill(&self, horizon: usize) -> Option<&Skill> {
        self.tracks.get(horizon.checked_sub(1)?).map(|track| &track.skill)
    }

    /// Whether decisions that look `horizon` windows ahead may rely on it.
    #[must_use]
    pub fn trust(&self, horizon: usize) -> Trust {
        let seen = self.history.len().min(self.age);
        let Some(skill) = self.skill(horizon.min(self.settings.horizon)) else { return Trust::TooYoung };
        if seen < LEAST_HISTORY.max(2 * self.seasons[0]) || skill.scored < LEAST_SCORED {
            Trust::TooYoung
        } else if !skill.beats_naive() {
            Trust::NoBetterThanNaive
        } else if skill.is_coverage_broken(self.settings.level) {
            Trust::CoverageBroken
        } else {
            Trust::Earned
        }
    }

    /// The heaviest models of the next window's forecast, as label, weight and forecast.
    #[must_use]
    pub fn weights(&self) -> Vec<(String, f64, f64)> {
        let Some((track, forecasts, _)) = self.at(1) else { return Vec::new() };
        let weights = track.weights(&forecasts);
        let named = self.experts.iter().zip(forecasts).zip(weights);
        let mut named: Vec<_> = named.filter_map(|((e, f), w)| f.map(|f| (e.label(), w, f))).collect();
        named.sort_by(|a, b| b.1.total_cmp(&a.1));
        named
    }

    /// The order of its model where that is one SARIMA.
    #[must_use]
    pub fn order(&self) -> Option<String> {
        match &self.experts[..] {
            [Expert::Sarima(model)] => Some(model.order().to_string()),
            _ => None,
        }
    }

    /// One sentence on how the forecast comes about, with its figures.
    #[must_use]
    pub fn explain(&self) -> String {
        let kind = self.settings.kind;
        if self.history.is_empty() {
            return format!("{kind}: no window was counted yet");
        }
        let mut text = match &self.experts[..] {
            [only] => format!("{kind}: {}", only.explain()),
            _ => {
                let weights = self.weights();
                let told = weights.iter().take(3).filter(|(_, w, _)| *w >= 0.005);
                let parts: Vec<String> =
                    told.map(|(label, w, f)| format!("{:.0} % {label} ({f:.1})", 100.0 * w)).collect();
                format!("{kind}: {}", parts.join(", "))
            }
        };
        match self.seasons {
            [0, _] => {}
            [m, 0] => text.push_str(&format!("; season of {m} windows")),
            [m, longer] => text.push_str(&format!("; seasons of {m} and {longer} windows")),
        }
        if let Some(skill) = self.skill(1)
            && let (Some(own), Some(naive)) = (skill.rmse(), skill.naive_rmse())
        {
            text.push_str(&format!("; lately off by {own:.1} requests, naive by {naive:.1}"));
        }
        text
    }

    /// The median of what was counted, and the most: for reports.
    #[must_use]
    pub fn level(&self) -> Option<(f64, f64)> {
        let mut sorted = self.history.clone();
        sorted.sort_unstable_by(f64::total_cmp);
        sorted.last().map(|most| (interpolated(&sorted, 0.5), *most))
    }

    /// Its state, to be kept over a restart.
    #[must_use]
    pub fn save(&self) -> Value {
        serde_json::to_value(self).unwrap_or(Value::Null)
    }

    /// Takes back what [`Predictor::save`] gave. What does not fit is ignored and `false` returned.
    pub fn restore(&mut self, state: &Value) -> bool {
        let Ok(restored) = Self::deserialize(state) else { return false };
        let fits = restored.version == VERSION && restored.settings == self.settings;
        let shaped = restored.tracks.len() == restored.settings.horizon
            && restored.tracks.iter().all(|t| t.pending.iter().all(|p| p.forecasts.len() == restored.experts.len()));
        let sound = restored.history.iter().all(|v| (0.0..=MOST_COUNTED).contains(v));
        if fits && shaped && sound {
            *self = restored;
        }
        fits && shaped && sound
    }
}
