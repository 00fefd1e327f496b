//! Every input of the corpora, those that once broke something among them.

use std::path::Path;

use rbuild_fuzz::TARGETS;

#[test]
fn every_input_of_the_corpora_is_held_within_its_memory_and_time() {
    for target in TARGETS {
        let folder = Path::new(env!("CARGO_MANIFEST_DIR"))
            .join("corpus")
            .join(target.name);
        let mut inputs = 0;
        for entry in std::fs::read_dir(&folder).unwrap() {
            let input = std::fs::read(entry.unwrap().path()).unwrap();
            target.run(&input);
            inputs += 1;
        }
        assert!(inputs > 10, "{} has {inputs} inputs", folder.display());
    }
}
