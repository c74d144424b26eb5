//! Grafana's JSON of the dashboard, as of schema version 39 (Grafana 11 and later).

use serde_json::{Value, json};

use super::panels::{Kind, Panel, Row};

/// Width of the grid.
const COLUMNS: usize = 24;

/// Returns the dashboard.
#[must_use]
pub fn dashboard(rows: &[Row]) -> Value {
    let mut panels = Vec::new();
    let (mut id, mut y) = (0, 0);
    let mut next_id = || {
        id += 1;
        id
    };
    for row in rows {
        panels.push(json!({
            "collapsed": false,
            "gridPos": { "h": 1, "w": COLUMNS, "x": 0, "y": y },
            "id": next_id(),
            "panels": [],
            "title": row.title,
            "type": "row",
        }));
        y += 1;
        let is_numbers = row.panels.iter().all(|panel| is_number(panel.kind));
        let (height, in_line) = if is_numbers {
            (4, row.panels.len())
        } else {
            (8, 3)
        };
        for (place, panel) in row.panels.iter().enumerate() {
            let width = COLUMNS / in_line;
            let grid = json!({
                "h": height,
                "w": width,
                "x": place % in_line * width,
                "y": y + place / in_line * height,
            });
            panels.push(panel_json(panel, next_id(), &grid));
        }
        y += row.panels.len().div_ceil(in_line) * height;
    }
    json!({
        "annotations": { "list": [] },
        "description": "Hosts with runner-controller: jobs, runners, GitHub and the hosts. `cargo run -p testbed -- dashboard` writes this file.",
        "editable": true,
        "graphTooltip": 1,
        "links": [],
        "panels": panels,
        "refresh": "30s",
        "schemaVersion": 39,
        "tags": ["runner-controller"],
        "templating": { "list": variables() },
        "time": { "from": "now-6h", "to": "now" },
        "timezone": "browser",
        "title": "runner-controller",
        "uid": "runner-controller",
    })
}

fn is_number(kind: Kind) -> bool {
    match kind {
        Kind::Number | Kind::Fault => true,
        Kind::Curves | Kind::Areas => false,
    }
}

fn data_source() -> Value {
    json!({ "type": "prometheus", "uid": "${datasource}" })
}

/// Returns the variables: the Prometheus, the hosts and the pools.
fn variables() -> Value {
    let labels = |name: &str, title: &str, query: &str| {
        json!({
            "allValue": ".*",
            "current": { "selected": true, "text": ["All"], "value": ["$__all"] },
            "datasource": data_source(),
            "definition": query,
            "hide": 0,
            "includeAll": true,
            "label": title,
            "multi": true,
            "name": name,
            "options": [],
            "query": { "query": query, "refId": name },
            "refresh": 2,
            "regex": "",
            "sort": 1,
            "type": "query",
        })
    };
    json!([
        {
            "current": {},
            "hide": 0,
            "includeAll": false,
            "label": "Prometheus",
            "multi": false,
            "name": "datasource",
            "options": [],
            "query": "prometheus",
            "refresh": 1,
            "regex": "",
            "type": "datasource",
        },
        labels("instance", "Host", "label_values(runner_controller_build_info, instance)"),
        labels(
            "pool",
            "Pool",
            "label_values(runner_controller_pool_max{instance=~\"$instance\"}, pool)",
        ),
    ])
}

fn panel_json(panel: &Panel, id: u32, grid: &Value) -> Value {
    let letters = ["A", "B", "C", "D", "E"];
    let targets: Vec<Value> = panel
        .queries
        .iter()
        .zip(letters)
        .map(|((query, legend), letter)| {
            json!({
                "datasource": data_source(),
                "editorMode": "code",
                "expr": query,
                "instant": is_number(panel.kind),
                "legendFormat": legend,
                "range": !is_number(panel.kind),
                "refId": letter,
            })
        })
        .collect();
    let (kind, options) = if is_number(panel.kind) {
        ("stat", number_options())
    } else {
        ("timeseries", curve_options())
    };
    json!({
        "datasource": data_source(),
        "description": panel.help,
        "fieldConfig": { "defaults": defaults(panel), "overrides": [] },
        "gridPos": grid,
        "id": id,
        "options": options,
        "targets": targets,
        "title": panel.title,
        "type": kind,
    })
}

fn number_options() -> Value {
    json!({
        "colorMode": "value",
        "graphMode": "none",
        "justifyMode": "auto",
        "orientation": "auto",
        "reduceOptions": { "calcs": ["lastNotNull"], "fields": "", "values": false },
        "textMode": "auto",
    })
}

fn curve_options() -> Value {
    json!({
        "legend": { "calcs": ["lastNotNull", "max"], "displayMode": "table", "placement": "bottom", "showLegend": true },
        "tooltip": { "mode": "multi", "sort": "desc" },
    })
}

/// Returns unit, colours and form of the values.
fn defaults(panel: &Panel) -> Value {
    let green = json!({ "color": "green", "value": null });
    let red = json!({ "color": "red", "value": 1 });
    let steps = match panel.kind {
        Kind::Fault => json!([green, red]),
        Kind::Number | Kind::Curves | Kind::Areas => json!([green]),
    };
    let (color, custom) = match panel.kind {
        Kind::Number | Kind::Fault => ("thresholds", json!({})),
        Kind::Curves => ("palette-classic", curves(0, "none")),
        Kind::Areas => ("palette-classic", curves(30, "normal")),
    };
    json!({
        "color": { "mode": color },
        "custom": custom,
        "min": 0,
        "thresholds": { "mode": "absolute", "steps": steps },
        "unit": panel.unit,
    })
}

fn curves(fill: u32, stacking: &str) -> Value {
    json!({
        "drawStyle": "line",
        "fillOpacity": fill,
        "lineInterpolation": "linear",
        "lineWidth": 1,
        "showPoints": "never",
        "spanNulls": false,
        "stacking": { "group": "A", "mode": stacking },
    })
}

#[cfg(test)]
mod tests {
    use super::super::panels::ROWS;
    use super::*;

    #[test]
    fn panels_lie_beside_each_other_and_never_overlap() {
        let dashboard = dashboard(ROWS);
        let mut taken = std::collections::BTreeSet::new();
        for panel in dashboard["panels"].as_array().unwrap() {
            let grid = &panel["gridPos"];
            let [h, w, x, y] = ["h", "w", "x", "y"].map(|key| grid[key].as_u64().unwrap());
            assert!(x + w <= COLUMNS as u64, "{panel}");
            for column in x..x + w {
                for line in y..y + h {
                    assert!(taken.insert((column, line)), "{panel}");
                }
            }
        }
    }

    #[test]
    fn each_panel_has_a_help_and_letters_for_all_queries() {
        for panel in ROWS.iter().flat_map(|row| row.panels) {
            let json = panel_json(panel, 1, &json!({}));
            assert!(panel.help.ends_with('.'), "{}", panel.title);
            assert_eq!(
                json["targets"].as_array().unwrap().len(),
                panel.queries.len(),
                "{}",
                panel.title
            );
        }
    }
}
