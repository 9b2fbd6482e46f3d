ARG BASE=alpine
FROM ${BASE}:0 AS s0
ARG V0=0
RUN echo $V0 > /v
FROM ${BASE}:1 AS s1
ARG V1=1
RUN echo $V1 > /v
FROM ${BASE}:2 AS s2
ARG V2=2
RUN echo $V2 > /v
FROM ${BASE}:3 AS s3
ARG V3=3
RUN echo $V3 > /v
FROM ${BASE}:4 AS s4
ARG V4=4
RUN echo $V4 > /v
FROM ${BASE}:5 AS s5
ARG V5=5
RUN echo $V5 > /v
FROM ${BASE}:6 AS s6
ARG V6=6
RUN echo $V6 > /v
FROM ${BASE}:7 AS s7
ARG V7=7
RUN echo $V7 > /v
FROM ${BASE}:8 AS s8
ARG V8=8
RUN echo $V8 > /v
FROM ${BASE}:9 AS s9
ARG V9=9
RUN echo $V9 > /v
FROM ${BASE}:10 AS s10
ARG V10=10
RUN echo $V10 > /v
FROM ${BASE}:11 AS s11
ARG V11=11
RUN echo $V11 > /v
FROM ${BASE}:12 AS s12
ARG V12=12
RUN echo $V12 > /v
FROM ${BASE}:13 AS s13
ARG V13=13
RUN echo $V13 > /v
FROM ${BASE}:14 AS s14
ARG V14=14
RUN echo $V14 > /v
FROM ${BASE}:15 AS s15
ARG V15=15
RUN echo $V15 > /v
FROM ${BASE}:16 AS s16
ARG V16=16
RUN echo $V16 > /v
FROM ${BASE}:17 AS s17
ARG V17=17
RUN echo $V17 > /v
FROM ${BASE}:18 AS s18
ARG V18=18
RUN echo $V18 > /v
FROM ${BASE}:19 AS s19
ARG V19=19
RUN echo $V19 > /v
FROM scratch
COPY --from=s0 /v /v0
COPY --from=s1 /v /v1
COPY --from=s2 /v /v2
COPY --from=s3 /v /v3
COPY --from=s4 /v /v4
COPY --from=s5 /v /v5
COPY --from=s6 /v /v6
COPY --from=s7 /v /v7
COPY --from=s8 /v /v8
COPY --from=s9 /v /v9
COPY --from=s10 /v /v10
COPY --from=s11 /v /v11
COPY --from=s12 /v /v12
COPY --from=s13 /v /v13
COPY --from=s14 /v /v14
COPY --from=s15 /v /v15
COPY --from=s16 /v /v16
COPY --from=s17 /v /v17
COPY --from=s18 /v /v18
COPY --from=s19 /v /v19
