#[test] fn sizes() { println!("tables {} client {} ", size_of::<crate::Tables>(), size_of::<crate::Client>()); }
