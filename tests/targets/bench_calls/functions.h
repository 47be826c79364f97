// What is called.
#pragma once

#ifdef __cplusplus
extern "C" {
#endif

void bench_push(void);
void bench_marked(void);
void bench_leaf(void);
void bench_container(long leaves);
void bench_pipeline(void);

#ifdef __cplusplus
}
#endif
