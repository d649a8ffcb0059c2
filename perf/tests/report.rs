//! `docs/PERFORMANCE.md` and its pictures are what `perf report` makes of the results that are kept. With
//! `MILLRACE_BLESS=1` this writes them.

use std::path::Path;

use perf::report;

#[test]
fn the_page_is_fresh() {
    let tree = Path::new(env!("CARGO_MANIFEST_DIR"));
    let page = tree.join("../docs/PERFORMANCE.md");
    let rendered = report::of_folder(&tree.join("results")).expect("results that can be read");
    if std::env::var_os("MILLRACE_BLESS").is_some() {
        rendered.write(&page).expect("written");
    }
    let stale = rendered.differences(&page).expect("readable");
    assert!(
        stale.is_empty(),
        "stale: {stale:?}; run `perf report`, or the tests with MILLRACE_BLESS=1"
    );
    let text = std::fs::read_to_string(&page).expect("the page");
    for link in text
        .split("](")
        .skip(1)
        .filter_map(|rest| rest.split(')').next())
    {
        let picture = link.ends_with(".svg");
        assert!(!picture || page.with_file_name(link).is_file(), "{link}");
    }
}
